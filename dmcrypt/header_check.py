"""What is to be said about a LUKS header of either version, without any key. Only reads.

Source of what counts as weak: RFC 9106, section 4 (Argon2: 64 MiB, three passes); OWASP's Password
Storage Cheat Sheet of 2023 (iterations of PBKDF2); NIST SP 800-38A, sections 6.1 and 6.2 (ECB, and
IVs of CBC that can be foretold).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..keystore.errors import ConfigError, FormatError, MapperError, UnsupportedError
from .backing import Pread
from .cipher_spec import CipherSpec
from .engine.messages import Kdf, KdfType, KeyslotSpec
from .extent import Extent
from .finding import Finding, Severity
from .key_material import find_damage
from .luks1 import Luks1Header
from .luks2 import Luks2Header
from .luks2.binhdr import BINHDR_SIZE
from .luks2.keyslot import PRIORITY_IGNORE, find_bound
from .luks2.requirement import find_unknown_flags
from .luks2.volume_key import find_pending
from .units import SECTOR_SIZE

_MIB: Final = 1 << 20
_ALIGNMENT: Final = 4096
_ARGON2_MEMORY_KIB: Final = 64 * 1024
_ARGON2_PASSES: Final = 3
#: Of hashes that are not there: as SHA-256.
_PBKDF2_ITERATIONS: Final = {"sha1": 1_300_000, "sha512": 210_000, "whirlpool": 210_000}
_PBKDF2_OTHER: Final = 600_000
#: 2^32 sectors: there the IVs of `plain` begin again.
_PLAIN_REACH: Final = 1 << 41
_KEY_BITS_LEAST: Final = 128


@dataclass(frozen=True, slots=True)
class Subject:
    """A volume as it was given to be checked."""

    header: Luks1Header | Luks2Header
    pread: Pread  # of the file with the header
    data_size: int  # bytes of the file with the data
    path: str  # of the file with the header, as typed
    is_detached: bool = False
    old_header: int | None = None  # number of a kept one that passphrases open; None: not known of

    @property
    def image(self) -> str:
        """The path as a shell takes it."""
        return shlex.quote(self.path)


def check_header(subject: Subject) -> list[Finding]:
    """All findings, in the order of the header."""
    header = subject.header
    findings: list[Finding] = []
    if isinstance(header, Luks2Header):
        findings += _check_copies(header, subject)
        findings += _check_names(header, subject)
        findings += _check_config(header, subject)
    findings += _check_data(subject)
    findings += _check_digest(header)
    findings += _check_keyslots(subject)
    return findings


def _check_copies(header: Luks2Header, subject: Subject) -> Iterator[Finding]:
    repair = f"fusecrypt repair {subject.image}"
    for note in header.notes:
        place = "primary" if note.startswith("primary") else "secondary"
        start = 0 if place == "primary" else header.binary.hdr_size
        where = f"{place} header, bytes {start} to {start + header.binary.hdr_size}"
        yield Finding(
            Severity.ERROR,
            "header-copy",
            note.rpartition(";")[0].split(", using")[0],
            where,
            repair,
        )
    if header.notes:
        return
    size = header.binary.json_size
    one, other = (subject.pread(at + BINHDR_SIZE, size) for at in (0, header.binary.hdr_size))
    if one.rstrip(b"\0") != other.rstrip(b"\0"):
        yield Finding(
            Severity.ERROR,
            "header-copies-differ",
            "both copies are whole and of the same age, and say different things",
            f"bytes {BINHDR_SIZE} and {header.binary.hdr_size + BINHDR_SIZE}",
            f"fusecrypt luksHeaderBackup --header-backup-file FILE {subject.image}; fusecrypt "
            f"luksHeaderRestore --header-backup-file FILE {subject.image}",
        )


def _check_names(header: Luks2Header, subject: Subject) -> Iterator[Finding]:
    for path in header.duplicates:
        yield Finding(
            Severity.WARNING,
            "duplicate",
            "stands there twice: tools differ in what they read, and the header is not changed",
            path,
        )
    if not header.uuid:
        yield Finding(
            Severity.ERROR,
            "uuid",
            "no UUID: the volume cannot be opened",
            "uuid at byte 168",
            f"fusecrypt luksUUID --uuid $(uuidgen) {subject.image}",
        )


def _check_config(header: Luks2Header, subject: Subject) -> Iterator[Finding]:
    for name in header.metadata.config.requirements:
        is_running = "reencrypt" in name
        yield Finding(
            Severity.ERROR,
            "requirement",
            f"{name}: " + ("a reencryption was not finished" if is_running else "not known"),
            "config.requirements",
            f"cryptsetup reencrypt --resume-only {subject.image}" if is_running else "",
        )
    for flag in find_unknown_flags(header.metadata.config):
        yield Finding(Severity.NOTE, "flag", f"{flag}: not known, ignored", "config.flags")


def _check_data(subject: Subject) -> Iterator[Finding]:
    header = subject.header
    try:
        segment = header.get_segment(read_only=True)
    except (UnsupportedError, FormatError) as error:
        yield Finding(Severity.ERROR, "segment", str(error), "segments")
        return
    where = f"data from byte {segment.offset}"
    yield from _check_room(subject, segment.offset, segment.sector_size)
    if segment.offset % _ALIGNMENT:
        yield Finding(
            Severity.WARNING,
            "alignment",
            f"not at a multiple of {_ALIGNMENT} bytes: a write of a block touches two",
            where,
        )
    elif segment.offset % _MIB:
        yield Finding(Severity.NOTE, "alignment", "not at a multiple of 1 MiB", where)
    try:
        spec = CipherSpec.parse(segment.cipher)
    except (UnsupportedError, ConfigError) as error:
        yield Finding(Severity.ERROR, "cipher", str(error), segment.cipher_field)
        return
    key_size = header.find_key_size()
    length = subject.data_size - segment.offset
    for severity, text in _judge_cipher(spec, key_size, length):
        yield Finding(severity, "cipher", f"{spec.dm_name}: {text}", segment.cipher_field)
    if (said := find_clear_size(header)) is not None:
        command = f"fusecrypt check --key-file FILE {subject.image}"
        yield Finding(Severity.WARNING, "clear-key", said, segment.cipher_field, command)


def find_clear_size(header: Luks1Header | Luks2Header) -> str | None:
    """What to say of a paes volume whose key is too short to be a secure key; else None.

    Whether it is the beginning of one, only who has the key can see.
    """
    try:
        spec = CipherSpec.parse(header.get_segment(read_only=True).cipher)
    except MapperError:
        return None
    size = header.find_key_size() or 0
    if not spec.is_clear_size(size):
        return None
    return (
        f"{spec.dm_name} with a key of {size * 8} bits, which is a clear key's size and no secure "
        "key's: no coprocessor guards the volume, and if --key-size was forgotten, whoever has the "
        "secure key's file reads it"
    )


def _check_room(subject: Subject, offset: int, sector_size: int) -> Iterator[Finding]:
    size = subject.data_size
    header = subject.header
    fixed = (
        next((s.size for s in header.metadata.regular_segments if s.size is not None), None)
        if isinstance(header, Luks2Header)
        else None
    )
    if fixed is not None and size < offset + fixed:
        yield Finding(
            Severity.ERROR,
            "size",
            f"the file has {size} bytes, the data end at {offset + fixed}",
            "segments",
            f"truncate -s {offset + fixed} FILE",
        )
    elif size <= offset:
        hint = "" if subject.is_detached else "; a header alone? --header names it"
        yield Finding(
            Severity.ERROR,
            "size",
            f"the file has {size} bytes, the data begin at {offset}{hint}",
            "segments",
        )
    elif (size - offset) // SECTOR_SIZE * SECTOR_SIZE % sector_size:
        whole = offset + (size - offset + sector_size - 1) // sector_size * sector_size
        yield Finding(
            Severity.ERROR,
            "size",
            f"{size - offset} bytes of data are no multiple of the sector size {sector_size}: the "
            "volume cannot be opened",
            "segments",
            f"truncate -s {whole} FILE",
        )


def _judge_cipher(
    spec: CipherSpec, key_size: int | None, length: int
) -> Iterator[tuple[Severity, str]]:
    if spec.weakness:
        yield Severity.ERROR if spec.is_null else Severity.WARNING, spec.weakness
    if spec.is_null:
        return
    if spec.mode == "ecb":
        yield Severity.ERROR, "equal blocks look equal in every sector"
    if spec.mode == "cbc" and spec.iv in {"plain", "plain64", "plain64be", "null"}:
        yield Severity.WARNING, "who may write a file finds it again (IVs can be foretold)"
    if spec.iv == "plain" and length > _PLAIN_REACH:
        yield Severity.ERROR, "IVs repeat after 2 TiB, and the volume is larger"
    bits = (key_size or 0) * 8 // (2 if spec.is_xts else 1)
    if 0 < bits < _KEY_BITS_LEAST and not spec.takes_secure_keys:
        yield Severity.ERROR, f"a key of {bits} bits can be guessed"


def _check_digest(header: Luks1Header | Luks2Header) -> Iterator[Finding]:
    try:
        header.make_digest_spec()
    except MapperError as error:
        yield Finding(Severity.ERROR, "digest", str(error), "digest")


def _check_keyslots(subject: Subject) -> Iterator[Finding]:
    header = subject.header
    numbers = header.list_keyslots()
    bound = list_bound(header)
    if not bound:
        ways = "the key itself opens"
        command = f"fusecrypt luksAddKey --volume-key-file FILE {subject.image}"
        if subject.old_header is not None:
            ways = "the key itself, or an old header that was kept, opens"
            command = f"fusecrypt header restore {subject.image} {subject.old_header}"
        yield Finding(
            Severity.ERROR,
            "no-keyslot",
            f"no keyslot holds the volume key: only {ways} the volume",
            "keyslots",
            command,
        )
    elif len(bound) == 1:
        yield Finding(
            Severity.NOTE,
            "one-keyslot",
            "one only: a forgotten passphrase or a damaged area is the end of the data",
            f"keyslot {bound[0]}",
            f"fusecrypt luksAddKey {subject.image}",
        )
    if bound and isinstance(header, Luks2Header) and _are_ignored(header, bound):
        yield Finding(
            Severity.WARNING,
            "priority",
            "every keyslot is to be ignored: the volume opens only with --key-slot",
            "keyslots",
            f"fusecrypt config --priority normal --key-slot {bound[0]} {subject.image}",
        )
    waiting = _list_waiting(header)
    for number in numbers:
        if number in waiting:
            yield Finding(
                Severity.NOTE,
                "waiting",
                "waits for the NEW master key",
                f"keyslot {number}",
                f"fusecrypt zkey-cryptsetup reencipher --complete {subject.image}",
            )
        elif number not in bound:
            yield Finding(Severity.NOTE, "unbound", "does not open the volume", f"keyslot {number}")
        yield from _check_keyslot(subject, number, is_last=bound == (number,))


def _list_waiting(header: Luks1Header | Luks2Header) -> frozenset[int]:
    """Keyslots with a re-enciphered key; none if their tokens are damaged."""
    if isinstance(header, Luks1Header):
        return frozenset()
    try:
        return frozenset(pending.unbound for pending in find_pending(header.metadata))
    except FormatError:
        return frozenset()


def list_bound(header: Luks1Header | Luks2Header) -> tuple[int, ...]:
    """Numbers of the keyslots that hold the volume key."""
    if isinstance(header, Luks1Header):
        return header.list_keyslots()
    bound = find_bound(header.metadata, header.metadata.regular_segments[0].id)
    return tuple(n for n in header.list_keyslots() if n in bound)


def _are_ignored(header: Luks2Header, bound: tuple[int, ...]) -> bool:
    slots = [slot for slot in header.metadata.keyslots if slot.id in bound]
    return all(slot.priority == PRIORITY_IGNORE for slot in slots)


def _check_keyslot(subject: Subject, number: int, *, is_last: bool) -> Iterator[Finding]:
    header = subject.header
    where = f"keyslot {number}"
    slot = header.metadata.find_keyslot(number) if isinstance(header, Luks2Header) else None
    if slot is not None and slot.type != "luks2":
        message = f"type {slot.type} is not known, and is left as it is"
        yield Finding(Severity.NOTE, "keyslot-type", message, where)
        return
    try:
        spec = header.make_keyslot_spec(number)
    except UnsupportedError as error:
        yield Finding(Severity.WARNING, "keyslot", str(error), where)
        return
    except MapperError as error:
        yield Finding(Severity.ERROR, "keyslot", str(error), where)
        return
    yield from _check_material(subject, number, spec, is_last=is_last)
    if spec.area_cipher.startswith("cipher_null"):
        yield Finding(
            Severity.ERROR,
            "key-material-cipher",
            "the volume key lies there without encryption",
            where,
            f"fusecrypt luksChangeKey --key-slot {number} {subject.image}",
        )
    weakness = _judge_kdf(spec.kdf)
    if weakness:
        convert = f"fusecrypt luksConvertKey --key-slot {number} {subject.image}"
        if isinstance(header, Luks2Header):
            convert = convert.replace(" --key-slot", " --pbkdf argon2id --key-slot")
        yield Finding(Severity.WARNING, "kdf", weakness, where, convert)


def _check_material(
    subject: Subject, number: int, spec: KeyslotSpec, *, is_last: bool
) -> Iterator[Finding]:
    used = Extent(spec.area_offset, spec.key_size * spec.stripes)
    replace = f"fusecrypt luksHeaderRestore --header-backup-file FILE {subject.image}"
    if not is_last:
        replace = f"fusecrypt luksKillSlot {subject.image} {number}"
    for extent, what in find_damage(subject.pread, used):
        yield Finding(
            Severity.ERROR,
            "key-material",
            f"key material is damaged, {what}: no passphrase opens it",
            f"keyslot {number}, {extent}",
            replace,
        )


def _judge_kdf(kdf: Kdf) -> str:
    if kdf.type is KdfType.PBKDF2:
        least = _PBKDF2_ITERATIONS.get(kdf.hash_name.lower(), _PBKDF2_OTHER)
        if kdf.iterations < least:
            return (
                f"PBKDF2-{kdf.hash_name} of {kdf.iterations} iterations: passphrases are guessed "
                f"too fast, wanted {least}"
            )
        return ""
    if kdf.memory_kib < _ARGON2_MEMORY_KIB or kdf.iterations < _ARGON2_PASSES:
        return (
            f"{kdf.type.name.lower()} of {kdf.memory_kib} KiB and {kdf.iterations} passes: "
            f"passphrases are guessed too fast, wanted {_ARGON2_MEMORY_KIB} and {_ARGON2_PASSES}"
        )
    return ""
