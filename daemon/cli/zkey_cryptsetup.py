"""``fusecrypt zkey-cryptsetup``: the secure key in a LUKS2 header is validated, named, replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from dataclasses import dataclass

from ...dmcrypt.engine.client import Engine
from ...dmcrypt.luks2 import Luks2Header, key_change, volume_key
from ...dmcrypt.luks2.change import edit_header
from ...keystore.coprocessor import Register
from ...keystore.errors import ConfigError, CoprocessorError, FormatError, PolicyError
from ...keystore.keys import SecureKey
from ...keystore.token_shape import TokenShape, describe_token
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..secure_volume import SecureVolume, check_heirs, check_pattern, find_pattern, get_encryption
from .arguments import Arguments
from .ask_yes import ask_yes
from .header_change import HeaderAction, open_header
from .locating import locating
from .output import Output
from .own_engine import run_engine
from .secure_key_file import read_secure_key
from .volume_passphrases import Unlocked, unlock_keyslots
from .zkey_record import Finding, format_clear_bits, format_flag, split_pattern

_OLD = (
    "The secure volume key is currently enciphered with the OLD master key. To mitigate the danger "
    "of data loss re-encipher the volume key with the CURRENT master key"
)
_NO_PATTERN = (
    "The volume key cannot be identified because the header has no verification pattern; "
    "'fusecrypt zkey-cryptsetup setvp' sets it"
)


@dataclass(frozen=True, slots=True)
class Place:
    """What an action works with."""

    args: Arguments
    output: Output
    action: HeaderAction
    engine: Engine
    keystore: Keystore
    volume: SecureVolume

    @property
    def path(self) -> str:
        return self.action.file.path

    def read(self, cipher: str = "paes") -> Luks2Header:
        """The header, if it is one of such a volume.

        Raises:
            MapperError: as `SecureVolume.read`.
        """
        with locating(self.path):
            return self.volume.read(cipher)

    @contextlib.contextmanager
    def unlock(
        self,
        header: Luks2Header,
        numbers: Collection[int] | None = None,
        *,
        only_one: bool = False,
    ) -> Generator[Unlocked, None, None]:
        """The keyslots that the passphrases open, as `unlock_keyslots`; errors say the path.

        Without ``numbers`` every one that holds the volume key is asked for.
        """
        if numbers is None:
            numbers = key_change.list_bound(header)
        with (
            unlock_keyslots(
                self.engine, self.volume, header, numbers, self.args, self.path, only_one=only_one
            ) as unlocked,
            locating(self.path),
        ):
            yield unlocked

    def check_heirs(self, header: Luks2Header, unlocked: Unlocked) -> None:
        """Refuse to leave keyslots behind that were not unlocked, but for --force.

        Raises:
            MapperError: as `secure_volume.check_heirs`.
        """
        if not self.args.has("force"):
            check_heirs(header, unlocked.numbers)

    def confirm(self, question: str, refusal: str) -> None:
        """Ask, unless nobody is to be asked.

        Raises:
            DeclinedError: the answer was no.
        """
        if not self.output.is_quiet:
            ask_yes(question, f"{self.path}: {refusal}")


@contextlib.contextmanager
def open_place(
    args: Arguments, settings: Settings, output: Output, *, read_only: bool = False
) -> Generator[Place, None, None]:
    """The header that the command line names, with an engine and the adapters.

    Raises:
        MapperError: it cannot be opened.
    """
    with open_header(args, settings, output, read_only=read_only, only_luks2=True) as action:
        with locating(action.file.path):
            key_change.check_changeable(action.file.fd)
        keystore = Keystore(settings)
        with run_engine() as engine:
            volume = SecureVolume(engine, keystore, action.file.fd, action.keep)
            yield Place(args, output, action, engine, keystore, volume)


def run_validate(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say what the volume key is; status 1 if no adapter can use it.

    Raises:
        MapperError: there is no telling.
    """
    with open_place(args, settings, output, read_only=True) as place:
        header = place.read()
        key = _read_key(place, header)
        with locating(place.path):
            pattern = find_pattern(header)
            is_pending = bool(volume_key.find_pending(header.metadata))
        try:
            finding = Finding(place.keystore.validate(key))
        except (CoprocessorError, FormatError) as error:
            if not place.keystore.list_adapters():
                raise
            finding = Finding(None, str(error))
        shape = describe_token(key.token)
        for line in _format(place.path, shape, finding, pattern):
            output.line(line)
        if is_pending:
            output.line("  Volume key re-enciphering is pending")
        _warn(place, finding, pattern)
        output.json(
            {
                "device": place.path,
                "valid": finding.validation is not None,
                "key_type": shape.kind,
                "size": shape.size,
                "xts": shape.is_xts,
                "mkvp": key.mkvp.hex(),
                "register": str(finding.validation.register) if finding.validation else None,
                "pattern": pattern,
                "pending": is_pending,
            }
        )
    return ExitCode.OK if finding.validation else ExitCode.WRONG_PARAMETERS


def run_setvp(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write the verification pattern of the volume key into the header.

    Raises:
        MapperError: the key is not valid, or the header cannot be changed.
    """
    with open_place(args, settings, output) as place:
        header = place.read()
        key = _read_key(place, header)
        with locating(place.path):
            pattern = place.keystore.validate(key).pattern
            edit_header(
                place.action.file.fd, lambda now: _set_pattern(now, pattern), place.action.keep
            )
        place.action.finish({"pattern": pattern})
    return ExitCode.OK


def run_setkey(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Put the secure key of a file into the header.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    new = read_new_key(args)
    with open_place(args, settings, output) as place:
        header = place.read()
        check_mode(place.path, header, new, "paes")
        with locating(place.path):
            validation = place.keystore.validate(new)
            known = find_pattern(header)
            check_pattern(known, validation.pattern)
        if validation.register is Register.OLD:
            place.confirm(f"{_OLD}. Use the secure key as it is", "the volume key was not set")
        with place.unlock(header) as unlocked:
            old = place.volume.read_key(header, unlocked.key)
            if old == new:
                output.warn(f"{place.path}: the secure key is the volume key already")
                output.json({"device": place.path, "changed": False})
                return ExitCode.OK
            if known is None and not _is_same_key(place, old, validation.pattern):
                place.confirm(
                    "ATTENTION: the key cannot be compared with the volume's. You will lose "
                    "all data on the volume if you set the wrong volume key! Set it",
                    "the volume key was not set",
                )
            place.check_heirs(header, unlocked)
            place.volume.replace(unlocked.slots, new, validation.pattern)
        place.action.finish({"changed": True, "pattern": validation.pattern})
    return ExitCode.OK


def run_convert(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make a volume with a clear key one with a secure key; its data stay as they are.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    new = read_new_key(args)
    with open_place(args, settings, output) as place:
        header = place.read("aes")
        encryption = check_mode(place.path, header, new, "aes")
        with locating(place.path):
            validation = place.volume.check_same_key(header, new)
        place.confirm(
            "ATTENTION: the header will hold a secure key, which only an adapter with its master "
            "key can use. Convert",
            "was not converted",
        )
        with place.unlock(header) as unlocked:
            place.check_heirs(header, unlocked)
            place.volume.replace(
                unlocked.slots, new, validation.pattern, encryption=f"p{encryption}"
            )
        place.action.finish({"cipher": f"p{encryption}", "pattern": validation.pattern})
        output.warn(
            f"{place.path}: the backup of the old header, and whoever had the clear key, still "
            "open the data: 'header forget' removes the backup; only re-encrypting the data with "
            "another key helps against the other"
        )
    return ExitCode.OK


def read_new_key(args: Arguments) -> SecureKey:
    """The secure key of --volume-key-file.

    Raises:
        ConfigError: none is given.
        FormatError: the file is none.
    """
    return read_secure_key(args.get_text("volume-key-file"))


def check_mode(path: str, header: Luks2Header, key: SecureKey, cipher: str) -> str:
    """That the key is one for the volume's mode; the cipher.

    Raises:
        ConfigError: it is a pair where one key is wanted, or the other way round; another mode.
    """
    spec = get_encryption(header, cipher)
    if spec.is_xts != key.is_xts:
        kinds = {True: "two keys, for XTS", False: "one key"}
        raise ConfigError(f"{path}: {spec.dm_name} takes {kinds[spec.is_xts]}")
    if spec.dm_name not in (f"{cipher}-xts-plain64", f"{cipher}-cbc-plain64"):
        raise ConfigError(f"{path}: {spec.dm_name}; wanted: {cipher}-xts-plain64 or cbc-plain64")
    return spec.dm_name


def _read_key(place: Place, header: Luks2Header) -> SecureKey:
    """The secure key in the header, of any keyslot that a passphrase opens."""
    with place.unlock(header, only_one=True) as unlocked:
        return place.volume.read_key(header, unlocked.key)


def _set_pattern(header: Luks2Header, pattern: str) -> Luks2Header:
    get_encryption(header, "paes")
    return volume_key.set_pattern(header, pattern)


def _is_same_key(place: Place, old: SecureKey, pattern: str) -> bool:
    """Whether the old key is known to be the same; false if no adapter can use it any more.

    Raises:
        FormatError: it is known to be another one.
    """
    try:
        validation = place.keystore.validate(old)
    except (CoprocessorError, FormatError):
        return False
    check_pattern(validation.pattern, pattern)
    return True


def _format(path: str, shape: TokenShape, finding: Finding, pattern: str | None) -> list[str]:
    enciphered = finding.enciphered_with
    if finding.validation is None:
        mkvp = "" if shape.mkvp is None else f", MKVP: {shape.mkvp.hex()}"
        enciphered = f"(unknown{mkvp})"
    first, *rest = split_pattern(pattern) if pattern else ["Not available"]
    rows = [
        ("Status:", "Valid" if finding.validation else "Invalid"),
        ("Secure key size:", f"{shape.size} bytes"),
        ("XTS type key:", format_flag(is_set=shape.is_xts)),
        ("Key type:", shape.kind),
        ("Clear key size:", format_clear_bits(shape, finding)),
        ("Enciphered with:", enciphered),
        ("Verification pattern:", first),
        *(("", part) for part in rest),
    ]
    return [
        f"Validation of secure volume key of device '{path}':",
        "  Encryption key:",
        *(f"    {label:<22} {value}" for label, value in rows),
    ]


def _warn(place: Place, finding: Finding, pattern: str | None) -> None:
    validation = finding.validation
    if validation is None:
        place.output.line("ATTENTION: The secure volume key is not valid.")
        place.output.warn(f"{place.path}: {finding.reason}")
        return
    if validation.register is Register.OLD:
        place.output.warn(_OLD)
    if pattern is None:
        place.output.warn(_NO_PATTERN)
    elif pattern != validation.pattern:
        raise PolicyError(
            f"{place.path}: the volume key has verification pattern {validation.pattern}, and the "
            f"header says {pattern}: it is another key"
        )
