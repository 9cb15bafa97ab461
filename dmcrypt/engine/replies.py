"""What the engine's refusals mean: replies to the exceptions of all packages."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ...keystore.errors import (
    EngineError,
    EngineMemoryError,
    FormatError,
    MapperError,
    ProtectedKeyExpiredError,
    UnlockError,
    UnsupportedError,
)
from .channel import Reply
from .messages import DigestSpec, KeyslotSpec, SegmentSpec


def check(reply: Reply, what: str) -> None:
    """Raise what a failure of ``what`` means, where the request has no words of its own for it."""
    if reply.status == 0:
        return
    code = -reply.status
    if code == errno.ENOSPC:
        raise EngineMemoryError(f"{what}: the engine's key memory is full (RLIMIT_MEMLOCK)")
    if code in (errno.ENOMEM, errno.E2BIG):
        raise EngineMemoryError(
            f"{what}: the KDF wants more memory than policy or the machine allows"
        )
    if code == errno.EKEYEXPIRED:
        raise ProtectedKeyExpiredError(
            f"{what}: the key belongs to another session of the engine; "
            "if one began just now (adapter bump-session), try again"
        )
    raise EngineError(f"{what}: {os.strerror(code)}")


def check_greeting(reply: Reply) -> None:
    """As `check`, of the reply to HELLO."""
    check(reply, "engine's greeting")
    if len(reply.fds) != 1:
        raise EngineError(f"engine's greeting: {len(reply.fds)} descriptors, wanted 1")


def check_keyslot(
    reply: Reply, keyslot: KeyslotSpec, what: str, digest: DigestSpec | None = None
) -> None:
    """As `check`, of a request with a keyslot, and perhaps a digest."""
    if reply.status == -errno.EOPNOTSUPP:
        kdf = keyslot.kdf
        fields = [
            f"area cipher {keyslot.area_cipher!r}",
            f"AF hash {keyslot.af_hash!r}",
            f"KDF {kdf.type.name.lower()}"
            + (f" with hash {kdf.hash_name!r}" * bool(kdf.hash_name)),
            *([] if digest is None else [f"digest hash {digest.hash_name!r}"]),
        ]
        raise UnsupportedError(f"{what}: not supported is one of {', '.join(fields)}")
    if reply.status == -errno.E2BIG:
        raise EngineMemoryError(
            f"{what}: Argon2 wants {keyslot.kdf.memory_kib} KiB, more than policy allows"
        )
    if reply.status == -errno.EINVAL:
        raise FormatError(f"{what}: sizes or KDF costs that cannot be")
    check(reply, what)


def check_key(reply: Reply, got: int | None, wanted: int) -> None:
    """As `check`, of a request that makes a volume key; sizes in bytes."""
    refusals: dict[int, MapperError] = {
        errno.EKEYREJECTED: UnlockError("volume key: the two halves of an XTS key are equal"),
        errno.ENODATA: UnlockError(
            f"key file: {'too few' if got is None else got} bytes, wanted {wanted}"
        ),
        errno.EINVAL: UnlockError(f"volume key: {wanted} bytes, possible are 1 to 2080"),
    }
    if -reply.status in refusals:
        raise refusals[-reply.status]
    check(reply, "making the volume key")


def check_table(reply: Reply, segments: Sequence[SegmentSpec]) -> None:
    """As `check`, of a request with a table."""
    ciphers = ", ".join(sorted({s.cipher for s in segments if s.cipher}))
    if reply.status == -errno.EOPNOTSUPP:
        raise UnsupportedError(f"cipher {ciphers}: not supported")
    if reply.status == -errno.EKEYREJECTED:
        raise UnlockError("volume key: the two halves of an XTS key are equal")
    if reply.status == -errno.EINVAL:
        raise EngineError(f"table: sizes, offsets or a key that do not fit cipher {ciphers}")
    if reply.status == -errno.EEXIST:
        raise EngineError("table: this node id is in use")
    if reply.status == -errno.EUSERS:
        raise EngineError("table: the engine serves as many devices as it can")
    check(reply, "loading the table")
