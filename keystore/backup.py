"""A backup of adapters: one file under a passphrase.

JSON: everything but the master keys in the clear and authenticated, the master keys of each adapter
in the order of the list under AES-256-GCM, its key from scrypt (RFC 7914). Master keys never stand
in the JSON text itself, since text cannot be wiped.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import gcm
from .adapter import MASTER_KEYS_SIZE, VERSION, Adapter, MasterKeys, pack_public, take_public
from .clear_bytes import wiped
from .coprocessor import AdapterInfo
from .errors import BusyError, ConfigError, CoprocessorError, FormatError, NoKeyError
from .json_object import JsonObject, pack_canonical
from .passphrase_kdf import PassphraseKdf

#: Bytes: one message of the control socket must hold it in base64, with room.
SIZE_MAX: Final = 700 << 10
_FORMAT: Final = "fusecrypt adapter backup"
_CHECKSUM_SIZE: Final = 32


def pack(adapters: Sequence[Adapter], passphrase: bytearray) -> bytes:
    """The backup file of these adapters.

    Raises:
        ConfigError: the passphrase is empty.
        CoprocessorError: too many adapters for one file, or no memory.
    """
    if not passphrase:
        raise ConfigError("backup: the passphrase is empty")
    kdf, nonce = PassphraseKdf.make(), os.urandom(gcm.NONCE_SIZE)
    public = [(adapter.info, adapter.driver) for adapter in adapters]
    members = _pack_public(public, kdf, nonce, VERSION)
    with wiped(bytearray(MASTER_KEYS_SIZE * len(adapters))) as clear:
        for i, adapter in enumerate(adapters):
            start = i * MASTER_KEYS_SIZE
            clear[start : start + MASTER_KEYS_SIZE] = adapter.master_keys.content
        with wiped(kdf.derive(passphrase, "backup")) as key:
            sealed = gcm.encrypt(clear, key, nonce, pack_canonical(members))
    members["master_keys"] = sealed.hex()
    # Not for security: it tells a damaged file from a wrong passphrase.
    members["checksum"] = hashlib.sha256(pack_canonical(members)).hexdigest()
    data = pack_canonical(members) + b"\n"
    if len(data) > SIZE_MAX:
        raise CoprocessorError(f"backup: {len(adapters)} adapters are too many for one file")
    return data


def parse(data: bytes, passphrase: bytearray) -> list[Adapter]:
    """The adapters in a backup file; the caller wipes their master keys.

    Raises:
        FormatError: no backup, a damaged one, or one that would need more than 256 MiB to open.
        NoKeyError: another passphrase.
        CoprocessorError: no memory.
    """
    contents = _parse_public(data)
    with wiped(contents.kdf.derive(passphrase, "backup")) as key:
        try:
            clear = gcm.decrypt(contents.sealed, key, contents.nonce, contents.vouched)
        except gcm.NotAuthenticError as error:
            raise NoKeyError("backup: it does not open with this passphrase") from error
    adapters: list[Adapter] = []
    with wiped(clear):
        for i, (info, driver) in enumerate(contents.adapters):
            start = i * MASTER_KEYS_SIZE
            keys = MasterKeys(clear[start : start + MASTER_KEYS_SIZE])
            adapters.append(Adapter(info, driver, keys))
    try:
        for adapter in adapters:
            adapter.check(f"backup: adapter {adapter.info.apqn}")
    except FormatError:
        for adapter in adapters:
            adapter.master_keys.wipe()
        raise
    return adapters


def check_same(ours: Adapter, there: Adapter) -> None:
    """That an adapter in use has the master keys of the one in the backup.

    Raises:
        BusyError: it has others.
    """
    if not hmac.compare_digest(ours.master_keys.content, there.master_keys.content):
        raise BusyError(
            f"adapter {ours.info.apqn}: exists with {_tell_registers(there.info)}, the backup has "
            f"{_tell_registers(ours.info)}; nothing was restored; 'fusecrypt adapter remove "
            f"{ours.info.apqn}' first, if nothing is under its master key"
        )


def _tell_registers(info: AdapterInfo) -> str:
    return f"CURRENT {info.current}, OLD {info.old}, NEW {info.new}"


@dataclass(frozen=True, slots=True)
class _Contents:
    adapters: list[tuple[AdapterInfo, str]]
    kdf: PassphraseKdf
    nonce: bytes
    sealed: bytes
    vouched: bytes  # what the seal authenticates


def _pack_public(
    adapters: Sequence[tuple[AdapterInfo, str]],
    kdf: PassphraseKdf,
    nonce: bytes,
    version: int,
) -> dict[str, Any]:
    """The members that stand in the clear, which the seal vouches for."""
    return {
        "format": _FORMAT,
        "version": version,
        "kdf": kdf.pack(),
        "cipher": {"type": "aes-256-gcm", "nonce": nonce.hex()},
        "adapters": [pack_public(info, driver, version) for info, driver in adapters],
    }


def _parse_public(data: bytes) -> _Contents:
    if len(data) > SIZE_MAX:
        raise FormatError(f"backup: {len(data)} bytes, at most {SIZE_MAX}")
    json = JsonObject.parse(data, "backup")
    json.take_constant("format", _FORMAT)
    version = json.take_version(VERSION)
    kdf = PassphraseKdf.take(json.take_object("kdf"), "backup")
    cipher = json.take_object("cipher")
    cipher.take_constant("type", "aes-256-gcm")
    nonce = cipher.take_hex("nonce", gcm.NONCE_SIZE)
    cipher.finish()
    adapters: list[tuple[AdapterInfo, str]] = []
    for item in json.take_objects("adapters"):
        adapters.append(take_public(item, "backup", version))
        item.finish()
    apqns = [info.apqn for info, _ in adapters]
    if not apqns or sorted(set(apqns)) != apqns:
        raise FormatError("backup: adapters are missing, out of order, or there twice")
    sealed = json.take_hex("master_keys", len(adapters) * MASTER_KEYS_SIZE + gcm.TAG_SIZE)
    checksum = json.take_hex("checksum", _CHECKSUM_SIZE)
    json.finish()
    members = _pack_public(adapters, kdf, nonce, version)
    vouched = pack_canonical(members)
    members["master_keys"] = sealed.hex()
    if hashlib.sha256(pack_canonical(members)).digest() != checksum:
        raise FormatError("backup: damaged, its checksum is wrong")
    return _Contents(adapters, kdf, nonce, sealed, vouched)
