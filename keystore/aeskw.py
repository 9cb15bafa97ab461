"""AESKW: a key bound to its description, wrapped by another key.

Source: ANSI X9.102, sections on AESKW, as CCA's Programmer's Guide describes it under "AESKW key
wrapping method". The wrapping function W is the one of RFC 3394 2.2.1, in terms of semiblocks of 8
bytes; only what is wrapped differs: 6 bytes A6, pad length in bits, hash length, 4 bytes of hash
options, SHA-256 of the associated data, key, zero pad.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from .clear_bytes import wipe, wiped
from .errors import FormatError

_SEMIBLOCK: Final = 8
_BLOCK: Final = 16
_ROUNDS: Final = 6
_HEAD: Final = struct.Struct(">6sBB4s32s")
_ICV: Final = b"\xa6" * 6
_OPTIONS: Final = bytes(4)
_HASH_SIZE: Final = 32
_PAD_MAX: Final = 255 // 8  # bytes; its length in bits is one byte


def wrap(key: bytearray, associated_data: bytes, wrapping_key: bytearray, size: int) -> bytes:
    """The key and the hash of its associated data, wrapped: ``size`` bytes, a multiple of 8."""
    pad = size - _HEAD.size - len(key)
    assert size % _SEMIBLOCK == 0
    assert 0 <= pad <= _PAD_MAX
    digest = hashlib.sha256(associated_data).digest()
    with wiped(bytearray(size)) as payload:
        _HEAD.pack_into(payload, 0, _ICV, pad * 8, _HASH_SIZE, _OPTIONS, digest)
        payload[_HEAD.size : _HEAD.size + len(key)] = key
        wrap_semiblocks(payload, wrapping_key)
        return bytes(payload)


def unwrap(wrapped: bytes, associated_data: bytes, wrapping_key: bytearray) -> bytearray:
    """The key inside; the caller wipes it.

    Raises:
        FormatError: wrapped by another key, altered, or with other associated data.
    """
    if len(wrapped) % _SEMIBLOCK or len(wrapped) <= _HEAD.size:
        raise FormatError(f"AESKW payload: {len(wrapped)} bytes, wanted a multiple of 8 above 44")
    with wiped(bytearray(wrapped)) as payload:
        unwrap_semiblocks(payload, wrapping_key)
        pad = payload[6] // 8
        digest = hashlib.sha256(associated_data).digest()
        head = bytearray(_HEAD.size)
        _HEAD.pack_into(head, 0, _ICV, payload[6], _HASH_SIZE, _OPTIONS, digest)
        is_whole = hmac.compare_digest(head, payload[: _HEAD.size])
        end = len(payload) - pad
        if not is_whole or payload[6] % 8 or end <= _HEAD.size or any(payload[end:]):
            raise FormatError(
                "AESKW payload: altered, or wrapped by another key or for another description"
            )
        return payload[_HEAD.size : end]


def wrap_semiblocks(data: bytearray, wrapping_key: bytearray) -> None:
    """The function W, in place: the first semiblock is the check value (RFC 3394 2.2.1)."""
    _step_through(data, wrapping_key, is_wrap=True)


def unwrap_semiblocks(data: bytearray, wrapping_key: bytearray) -> None:
    """The inverse of W, in place (RFC 3394 2.2.2)."""
    _step_through(data, wrapping_key, is_wrap=False)


def _step_through(data: bytearray, wrapping_key: bytearray, *, is_wrap: bool) -> None:
    last = len(data) // _SEMIBLOCK - 1
    # The library's own key wrap takes no check value but RFC 3394's.
    cipher = Cipher(algorithms.AES(wrapping_key), modes.ECB())  # noqa: S305  one block at a time
    context = cipher.encryptor() if is_wrap else cipher.decryptor()
    steps = [(j, i) for j in range(_ROUNDS) for i in range(1, last + 1)]
    with wiped(bytearray(_BLOCK)) as block:
        for j, i in steps if is_wrap else reversed(steps):
            counter = (last * j + i).to_bytes(_SEMIBLOCK, "big")
            here = slice(i * _SEMIBLOCK, (i + 1) * _SEMIBLOCK)
            block[:_SEMIBLOCK] = data[:_SEMIBLOCK]
            block[_SEMIBLOCK:] = data[here]
            if not is_wrap:
                _xor(block, counter)
            _crypt_block(context, block)
            if is_wrap:
                _xor(block, counter)
            data[:_SEMIBLOCK] = block[:_SEMIBLOCK]
            data[here] = block[_SEMIBLOCK:]


def _xor(block: bytearray, counter: bytes) -> None:
    for k in range(_SEMIBLOCK):
        block[k] ^= counter[k]


def _crypt_block(context: CipherContext, block: bytearray) -> None:
    out = bytearray(2 * _BLOCK - 1)  # update_into wants room for a block more
    context.update_into(block, out)
    block[:] = out[:_BLOCK]
    wipe(out)
