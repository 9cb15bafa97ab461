"""``fusecrypt zkey generate``: a secure key in a file or in the repository."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Final

from ...keystore.coprocessor import MODE_ACCEL, AdapterInfo, Apqn
from ...keystore.errors import ConfigError, CoprocessorError, UnsupportedError
from ...keystore.keys import SecureKey
from ...keystore.repository import Repository
from ...keystore.repository_key import Volume
from ...keystore.tokens import KEY_BITS, XTS_KEY_BITS, KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .dummy_passphrase import provide_dummy_passphrase
from .new_file import write_new_file
from .output import Output
from .passphrase import is_handed_on
from .source import open_for_reading

_OF_REPOSITORY: Final = (
    "name", "description", "volumes", "sector-size", "volume-type", "gen-dummy-passphrase",
    "set-dummy-passphrase",
)  # fmt: skip
_OTHER_KEY_TYPES: Final = (
    "PVSECRET-AES", "PVSECRET-AES-XTS", "PVSECRET-HMAC"
)  # fmt: skip
_DEFAULT_KEY_BITS: Final = 256
_DEVICE_SPECS: Final = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make a key, and keep it."""
    key_type = _parse_key_type(args.text("key-type"))
    if args.positionals:
        return _generate_file(args, settings, output, key_type)
    return _generate_in_repository(args, settings, output, key_type)


def _generate_file(
    args: Arguments, settings: Settings, output: Output, key_type: KeyType
) -> ExitCode:
    for name in _OF_REPOSITORY:
        if args.has(name):
            raise ConfigError(f"--{name}: only for a key of the repository, without a file name")
    (path,) = args.positionals
    keystore = Keystore(settings)
    key = _generate(args, keystore, key_type, _choose(args, keystore, key_type))
    write_new_file(path, key.token, "secure key")
    _report(output, args, key, {"file": path})
    return ExitCode.OK


def _generate_in_repository(
    args: Arguments, settings: Settings, output: Output, key_type: KeyType
) -> ExitCode:
    name = args.text("name")
    if name is None:
        raise ConfigError("zkey generate: wanted: --name, or the file name of the new key")
    volumes = parse_volumes(args.text("volumes"))
    apqns = parse_apqns(args.text("apqns"))
    keystore = Keystore(settings)
    chosen = _choose(args, keystore, key_type)
    with provide_dummy_passphrase(args) as passphrase:
        key = _generate(args, keystore, key_type, chosen)
        stored = Repository(settings.zkey_repository).add(
            name,
            key,
            pattern=keystore.validate(key).pattern,
            description=args.text("description") or "",
            volumes=volumes,
            apqns=apqns,
            sector_size=args.number("sector-size") or 0,
            volume_type=(args.text("volume-type") or "luks2").lower(),
            passphrase=passphrase,
        )
    for volume in volumes:
        if "=" not in volume.path and not os.path.exists(volume.path):  # noqa: PTH110
            output.warn(f"volume {volume.path}: does not exist yet")
    _report(output, args, key, {"name": name, "file": str(stored.path)})
    return ExitCode.OK


def _generate(
    args: Arguments, keystore: Keystore, key_type: KeyType, apqns: Sequence[Apqn]
) -> SecureKey:
    is_xts = args.has("xts")
    key_bits = args.number("keybits")
    allowed = XTS_KEY_BITS if is_xts else KEY_BITS
    if key_bits is not None and key_bits not in allowed:
        wanted = ", ".join(map(str, allowed))
        raise ConfigError(f"--keybits: got {key_bits}; wanted: one of {wanted}")
    with _open_clear_key(args.text("clearkey"), key_bits, is_xts=is_xts) as (fd, bits):
        return keystore.generate(
            key_type,
            key_bits=bits,
            xts=is_xts,
            apqns=apqns,
            clear_key_fd=fd,
            is_exportable=args.has("exportable"),
        )


@contextlib.contextmanager
def _open_clear_key(
    path: str | None, key_bits: int | None, *, is_xts: bool
) -> Generator[tuple[int | None, int], None, None]:
    """The clear key's descriptor, if one is given, and the bits of the key or of one half."""
    if path is None:
        yield None, key_bits or _DEFAULT_KEY_BITS
        return
    with open_for_reading(path, "clear key") as file:
        if not is_handed_on(file.fd):
            raise ConfigError(f"clear key {path}: wanted: a regular file")
        halves = 2 if is_xts else 1
        sizes = {bits: bits * halves // 8 for bits in (XTS_KEY_BITS if is_xts else KEY_BITS)}
        for bits, size in sizes.items():
            if file.size == size and key_bits in {None, bits}:
                yield file.fd, bits
                return
        fitting = [size for bits, size in sizes.items() if key_bits in {None, bits}]
        wanted = " or ".join(map(str, fitting))
        raise ConfigError(f"clear key {path}: {file.size} bytes; wanted: {wanted}")


def _choose(args: Arguments, keystore: Keystore, key_type: KeyType) -> list[Apqn]:
    """The adapters that are named and there; none if none is named."""
    apqns = parse_apqns(args.text("apqns"))
    if args.has("no-apqn-check") and not apqns:
        raise ConfigError("--no-apqn-check: only with --apqns")
    is_checked = not args.has("no-apqn-check")
    return choose_adapters(keystore, apqns, key_type, is_checked=is_checked)


def choose_adapters(
    keystore: Keystore,
    apqns: Sequence[Apqn],
    key_type: KeyType | None = None,
    *,
    is_checked: bool = True,
) -> list[Apqn]:
    """The adapters to use: the named ones that there are, or all that are online.

    Of those that are not named only the kind counts that has keys of ``key_type``.

    Raises:
        CoprocessorError: there is none; or one of them cannot use what another one makes.
    """
    adapters = keystore.list_adapters()
    if not adapters:
        raise CoprocessorError(
            "no adapter that could make a secure key; 'fusecrypt adapter create 03.0039 --mode cca'"
            " makes a virtual one"
        )
    present = {adapter.apqn: adapter for adapter in adapters}
    if is_checked:
        missing = [str(apqn) for apqn in apqns if apqn not in present]
        if missing:
            raise CoprocessorError(f"adapter {', '.join(missing)}: does not exist")
        chosen = [present[apqn] for apqn in apqns] or [
            a for a in adapters if a.is_usable and (key_type is None or a.is_kind_for(key_type))
        ]
        _check_alike(chosen)
    return [apqn for apqn in apqns if apqn in present]


def _check_alike(adapters: Sequence[AdapterInfo]) -> None:
    unusable = [a for a in adapters if not a.is_usable or not a.current.is_usable]
    if unusable or len({adapter.current.mkvp for adapter in adapters}) > 1:
        states = "; ".join(
            f"{a.apqn} is an accelerator"
            if a.mode == MODE_ACCEL
            else f"{a.apqn} is {a.status} with CURRENT {a.current}"
            for a in adapters
        )
        raise CoprocessorError(
            f"the adapters need one master key: {states}; wanted: --apqns with some that have it"
        )


def _report(output: Output, args: Arguments, key: SecureKey, where: dict[str, object]) -> None:
    output.json(
        {
            **where,
            "key_type": str(key.key_type),
            "size": key.size,
            "clear_bits": key.clear_bits,
            "xts": key.is_xts,
            "mkvp": key.mkvp.hex(),
        }
    )
    if args.has("verbose"):
        output.line(f"{where['file']}: {key.key_type}, {key.size} bytes, MKVP {key.mkvp.hex()}")


def parse_volumes(text: str | None) -> tuple[Volume, ...]:
    """``VOLUME:DMNAME,…``, with the paths made absolute.

    Raises:
        ConfigError: not of this form.
    """
    volumes = [Volume.parse(part) for part in (text or "").split(",") if part]
    return tuple(
        volume
        if volume.path.partition("=")[0] in _DEVICE_SPECS
        else replace(volume, path=os.path.abspath(volume.path))  # noqa: PTH100 - keeps symlinks
        for volume in volumes
    )


def parse_apqns(text: str | None) -> tuple[Apqn, ...]:
    """``CARD.DOMAIN,…``, each once.

    Raises:
        ConfigError: not of this form.
    """
    return tuple(dict.fromkeys(Apqn.parse(part) for part in (text or "").split(",") if part))


def _parse_key_type(text: str | None) -> KeyType:
    if text is None:
        return KeyType.CCA_AESDATA
    name = text.upper()
    if name in _OTHER_KEY_TYPES:
        raise UnsupportedError(f"--key-type {name}: not supported")
    if name not in tuple(KeyType):
        raise ConfigError(f"--key-type: got {text!r}; wanted: {' or '.join(KeyType)}")
    return KeyType(name)
