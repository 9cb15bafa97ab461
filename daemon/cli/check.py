"""``check``: everything that its owner should know about a LUKS header. Never writes.

Ends with 0 when there is nothing beyond notes, with 1 when there is.
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from ...dmcrypt.cipher_spec import CipherSpec
from ...dmcrypt.engine.client import Engine
from ...dmcrypt.engine.messages import KeyKind
from ...dmcrypt.finding import Finding, Severity
from ...dmcrypt.header_check import Subject, check_header, list_bound
from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks2.recovery import NotLuksError
from ...dmcrypt.luks_header import read_luks_header
from ...dmcrypt.open_volume import OpenedVolume, open_luks
from ...dmcrypt.plaintext_check import check_plaintext
from ...keystore.errors import (
    AccessError,
    FormatError,
    MapperError,
    NoKeyError,
    PolicyError,
    UnlockError,
)
from ..config import Settings
from ..exitcodes import ExitCode
from ..header_history import Backup, HeaderHistory
from .arguments import Arguments
from .key_input import make_key_options, provide_key
from .luks_source import parse_key_slot, read_luks
from .output import Output
from .own_engine import load_secret, run_engine
from .source import SourceFile, open_for_reading, open_volume_file

_NODE: Final = 2  # any: this engine has one device
_TRAP: Final = (
    "the beginning of a secure key is used as if it were a clear key: whoever has that key's file "
    "reads the volume"
)
_TRAP_COMMAND: Final = (  # which takes the key size from the key
    "fusecrypt luksFormat --cipher paes-xts-plain64 --volume-key-file KEY NEW"
)


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Print every finding, with the command that mends it."""
    spec = args.positionals[0]
    header_spec = args.text("header")
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(open_volume_file(spec))
        file = data
        if header_spec is not None:
            file = stack.enter_context(open_for_reading(header_spec, "header"))
        findings = [*_check(args, settings, output, file, data, header_spec or spec)]
    counts = Counter(finding.severity for finding in findings)
    for finding in findings:
        output.line(f"{finding.severity}: {finding.where}: {finding.message}")
        if finding.command:
            output.line(f"    {finding.command}")
    if not findings:
        output.line(f"{spec}: nothing found")
    output.json(
        {
            "device": data.path,
            "findings": [asdict(finding) for finding in findings],
            **{f"{severity}s": counts[severity] for severity in Severity},
        }
    )
    is_sound = not (counts[Severity.ERROR] or counts[Severity.WARNING])
    return ExitCode.OK if is_sound else ExitCode.WRONG_PARAMETERS


def _check(
    args: Arguments,
    settings: Settings,
    output: Output,
    file: SourceFile,
    data: SourceFile,
    path: str,
) -> Iterator[Finding]:
    image = shlex.quote(path)
    try:
        header = read_luks(file, output)
    except NotLuksError:
        raise
    except FormatError as error:
        yield Finding(
            Severity.ERROR,
            "header",
            str(error).removeprefix(f"{file.path}: "),
            "header",
            f"fusecrypt luksHeaderRestore --header-backup-file FILE {image}",
        )
        return
    is_detached = file is not data
    backups = HeaderHistory(settings.state_dir).list_backups(header.uuid)
    subject = Subject(
        header,
        file.pread,
        data.size,
        path,
        is_detached=is_detached,
        old_header=_find_with_keyslots(backups),
    )
    yield from check_header(subject)
    yield from _check_history(backups, subject)
    if (backup := args.text("header-backup-file")) is not None:
        yield from _check_backup(backup, subject, output)
    if args.has("key-file"):
        yield from _check_with_key(args, file, data, subject)


def _find_with_keyslots(backups: Sequence[Backup]) -> int | None:
    """Number of the newest old header that has a keyslot for the volume key, counted from 1."""
    for number, backup in enumerate(backups, 1):
        with contextlib.suppress(MapperError), open_for_reading(str(backup.path), "header") as file:
            if list_bound(read_luks_header(file.pread, file.size)):
                return number
    return None


def _check_history(backups: Sequence[Backup], subject: Subject) -> Iterator[Finding]:
    header = subject.header
    if not backups:
        return
    newest = backups[0]
    where = str(newest.path.parent)
    if isinstance(header, Luks2Header) and newest.epoch > header.binary.seqid:
        yield Finding(
            Severity.WARNING,
            "header-older",
            f"the header (sequence id {header.binary.seqid}) is older than a copy that was kept "
            f"before a change ({newest.epoch}): an old one was put back",
            where,
            f"fusecrypt header diff {subject.image}",
        )
    yield Finding(
        Severity.NOTE,
        "old-headers",
        f"{len(backups)} old headers, which open the volume with the passphrases of their time",
        where,
        # What may be the last way in is not offered to be wiped.
        f"fusecrypt header forget {subject.image}" if list_bound(header) else "",
    )


def _check_backup(path: str, subject: Subject, output: Output) -> Iterator[Finding]:
    with open_for_reading(path, "header backup") as file:
        backup = read_luks(file, output)
        head = file.pread(0, 1024)
    header = subject.header
    command = f"fusecrypt luksHeaderBackup --header-backup-file NEW {subject.image}"
    if (backup.type, backup.uuid) != (header.type, header.uuid):
        yield Finding(
            Severity.ERROR,
            "backup",
            f"of another volume: {backup.type} {backup.uuid}",
            f"header backup {path}",
            command,
        )
        return
    if isinstance(header, Luks2Header) and isinstance(backup, Luks2Header):
        changes = header.binary.seqid - backup.binary.seqid
        is_old = changes != 0 or backup.metadata != header.metadata
        age = f"{changes} changes older than" if changes > 0 else "not the same as"
    else:
        is_old, age = head[:592] != subject.pread(0, 592), "not the same as"
    if is_old:
        yield Finding(
            Severity.WARNING,
            "backup",
            f"{age} the header: it opens with the passphrases of its time, and only those",
            f"header backup {path}",
            command,
        )


def _check_with_key(
    args: Arguments, file: SourceFile, data: SourceFile, subject: Subject
) -> Iterator[Finding]:
    """What is seen in the volume itself, deciphered in an engine of this command's own.

    Raises:
        NoKeyError: the key opens no keyslot.
    """
    key_slot = parse_key_slot(args, subject.header, file)
    with (
        run_engine() as engine,
        provide_key(make_key_options(args), "") as given,
        load_secret(engine, given) as secret,
    ):
        try:
            opened = open_luks(
                engine,
                subject.header,
                file.fd,
                secret,
                key_slot=key_slot,
                data_size=data.size,
                read_only=True,
            )
        except NoKeyError:
            raise
        except PolicyError:
            yield Finding(Severity.ERROR, "key", _TRAP, "volume key", _TRAP_COMMAND)
        except UnlockError as error:  # of paes, where nobody makes the key usable
            yield Finding(Severity.NOTE, "key", f"not looked into: {error}", "data")
        except AccessError:
            pass  # said already: there is no room for data
        except MapperError as error:
            yield Finding(Severity.ERROR, "open", str(error), "data")
        else:
            yield from _check_data(engine, opened, data)


def _check_data(engine: Engine, opened: OpenedVolume, data: SourceFile) -> Iterator[Finding]:
    key = opened.table.segments[0].key
    is_clear = not CipherSpec.parse(opened.cipher).takes_secure_keys
    if key is not None and is_clear and engine.export_key(key).kind is not KeyKind.CLEAR:
        yield Finding(Severity.ERROR, "key", _TRAP, "volume key", _TRAP_COMMAND)
    engine.add_device(opened.table.to_device(_NODE), [data.fd])
    try:
        yield from check_plaintext(
            lambda offset, size: engine.read(_NODE, offset, size), opened.sector_size
        )
    finally:
        engine.remove_device(_NODE)
