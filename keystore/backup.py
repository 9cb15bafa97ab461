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

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from . import gcm
from .adapter import MASTER_KEYS_SIZE, VERSION, Adapter, MasterKeys, pack_public, take_public
from .clear_bytes import wipe, wiped
from .coprocessor import AdapterInfo
from .errors import BusyError, ConfigError, CoprocessorError, FormatError, NoKeyError
from .json_object import JsonObject, pack_canonical

#: Bytes: one message of the control socket must hold it in base64, with room.
SIZE_MAX: Final = 700 << 10
_FORMAT: Final = "fusecrypt adapter backup"
_SALT_SIZE: Final = 32
_CHECKSUM_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class _Cost:
    """Parameters of scrypt."""

    n: int
    r: int
    p: int

    @property
    def memory(self) -> int:
        return 128 * self.n * self.r  # bytes, RFC 7914 section 2


#: 32 MiB, so that it fits a process whose memory is locked; three times, as OWASP's cheat sheet on
#: password storage has it for this size.
_COST: Final = _Cost(n=1 << 15, r=8, p=3)
#: What a file may demand of us.
_MEMORY_MAX: Final = 256 << 20
_WORK_MAX: Final = 1 << 22  # n * r * p: five times ours, about a second


def pack(adapters: Sequence[Adapter], passphrase: bytearray) -> bytes:
    """The backup file of these adapters.

    Raises:
        ConfigError: the passphrase is empty.
        CoprocessorError: too many adapters for one file, or no memory.
    """
    if not passphrase:
        raise ConfigError("backup: the passphrase is empty")
    salt, nonce = os.urandom(_SALT_SIZE), os.urandom(gcm.NONCE_SIZE)
    public = [(adapter.info, adapter.driver) for adapter in adapters]
    members = _pack_public(public, _COST, salt, nonce, VERSION)
    with wiped(bytearray(MASTER_KEYS_SIZE * len(adapters))) as clear:
        for i, adapter in enumerate(adapters):
            start = i * MASTER_KEYS_SIZE
            clear[start : start + MASTER_KEYS_SIZE] = adapter.master_keys.content
        with wiped(_derive(passphrase, salt, _COST)) as key:
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
    with wiped(_derive(passphrase, contents.salt, contents.cost)) as key:
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
            f"{_tell_registers(ours.info)}; nothing was restored"
        )


def _tell_registers(info: AdapterInfo) -> str:
    return f"CURRENT {info.current}, OLD {info.old}, NEW {info.new}"


@dataclass(frozen=True, slots=True)
class _Contents:
    adapters: list[tuple[AdapterInfo, str]]
    cost: _Cost
    salt: bytes
    nonce: bytes
    sealed: bytes
    vouched: bytes  # what the seal authenticates


def _pack_public(
    adapters: Sequence[tuple[AdapterInfo, str]],
    cost: _Cost,
    salt: bytes,
    nonce: bytes,
    version: int,
) -> dict[str, Any]:
    """The members that stand in the clear, which the seal vouches for."""
    return {
        "format": _FORMAT,
        "version": version,
        "kdf": {"type": "scrypt", "n": cost.n, "r": cost.r, "p": cost.p, "salt": salt.hex()},
        "cipher": {"type": "aes-256-gcm", "nonce": nonce.hex()},
        "adapters": [pack_public(info, driver, version) for info, driver in adapters],
    }


def _parse_public(data: bytes) -> _Contents:
    if len(data) > SIZE_MAX:
        raise FormatError(f"backup: {len(data)} bytes, at most {SIZE_MAX}")
    json = JsonObject.parse(data, "backup")
    json.take_constant("format", _FORMAT)
    version = json.take_version(VERSION)
    cost, salt = _take_kdf(json.take_object("kdf"))
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
    members = _pack_public(adapters, cost, salt, nonce, version)
    vouched = pack_canonical(members)
    members["master_keys"] = sealed.hex()
    if hashlib.sha256(pack_canonical(members)).digest() != checksum:
        raise FormatError("backup: damaged, its checksum is wrong")
    return _Contents(adapters, cost, salt, nonce, sealed, vouched)


def _take_kdf(json: JsonObject) -> tuple[_Cost, bytes]:
    json.take_constant("type", "scrypt")
    cost = _Cost(
        json.take_int("n", 2, 1 << 24), json.take_int("r", 1, 64), json.take_int("p", 1, 64)
    )
    salt = json.take_hex("salt", _SALT_SIZE)
    json.finish()
    if cost.n & (cost.n - 1) or cost.n >= 1 << 16 * cost.r:  # RFC 7914 section 2
        raise FormatError(f"backup: kdf: n is {cost.n}, wanted a power of two that fits r {cost.r}")
    if cost.memory > _MEMORY_MAX or cost.n * cost.r * cost.p > _WORK_MAX:
        raise FormatError(
            f"backup: kdf: wants {cost.memory >> 20} MiB {cost.p} times, at most "
            f"{_MEMORY_MAX >> 20} MiB"
        )
    return cost, salt


def _derive(passphrase: bytearray, salt: bytes, cost: _Cost) -> bytearray:
    key = bytearray(gcm.KEY_SIZE)
    try:
        Scrypt(salt, gcm.KEY_SIZE, cost.n, cost.r, cost.p).derive_into(passphrase, key)
    except MemoryError as error:
        wipe(key)
        raise CoprocessorError(
            f"backup: no memory for the passphrase's KDF, {cost.memory >> 20} MiB"
        ) from error
    return key
