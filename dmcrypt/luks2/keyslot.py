"""Keyslots of LUKS2: which to try, and each as the engine takes it.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.2; lib/luks2/luks2_keyslot.c for the
order.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ...keystore.errors import (
    FormatError,
    NotFoundError,
    UnlockError,
    UnsupportedError,
)
from ..engine.messages import SALT_MAX, KdfType, KeyslotSpec
from ..engine.messages import Kdf as KdfSpec
from ..kdf_policy import check_argon2, check_pbkdf2
from ..pbkdf import KDF_TYPES
from ..units import UINT32_MAX, round_up
from ..unlock import NoKeyslotError
from .model import Kdf, Keyslot, Metadata

#: cryptsetup splits into this many stripes whatever the header says (sec. 3.2.2; LUKS_STRIPES).
STRIPES: Final = 4000
AREA_ALIGNMENT: Final = 4096
KEYSLOTS_MAX: Final = 32
#: lib/luks2/luks2_keyslot.c: the cipher of an area where the data's cannot be, and its key's bytes.
_OTHER_AREA_CIPHER: Final = ("aes-xts-plain64", 64)
_NO_AREA_CIPHERS: Final = ("paes", "capi:", "cipher_null", "null")

PRIORITY_IGNORE: Final = 0
PRIORITY_NORMAL: Final = 1
PRIORITY_PREFER: Final = 2


def get_area_size(key_size: int) -> int:
    """Bytes of an area that holds the split of a key of ``key_size`` bytes."""
    return round_up(key_size * STRIPES, AREA_ALIGNMENT)


def choose_area_cipher(encryption: str, key_size: int) -> tuple[str, int]:
    """Cipher and key size of a new area, as cryptsetup has them without --keyslot-cipher.

    They are the data's, whose cipher ``encryption`` is; where that cannot be, as for paes, whose
    token is no key for the area, its defaults.
    """
    if not encryption or encryption.startswith(_NO_AREA_CIPHERS):
        return _OTHER_AREA_CIPHER
    return encryption, key_size


def list_candidates(metadata: Metadata, segment: int, number: int | None = None) -> list[Keyslot]:
    """The keyslots that may hold the key of a segment, in the order to try them.

    Preferred ones first, then normal ones, each by id; ignored ones only when asked for by
    ``number``; keyslots of other types, and unbound ones, never.

    Raises:
        NotFoundError: no keyslot ``number``.
        UnlockError: keyslot ``number`` does not hold a key for this segment, or there is none that
            may.
        UnsupportedError: keyslot ``number`` is of another type.
    """
    bound = find_bound(metadata, segment)
    if number is not None:
        slot = metadata.find_keyslot(number)
        if slot is None:
            raise NotFoundError(f"keyslot {number}: does not exist")
        if slot.type != "luks2":
            raise UnsupportedError(
                f"keyslot {number}: type {slot.type} is not supported, wanted luks2"
            )
        if number not in bound:
            raise UnlockError(f"keyslot {number}: holds no key of segment {segment} (unbound)")
        return [slot]
    fitting = [s for s in metadata.keyslots if s.type == "luks2" and s.id in bound]
    candidates = [s for s in fitting if s.priority == PRIORITY_PREFER]
    candidates += [s for s in fitting if s.priority == PRIORITY_NORMAL]
    if not candidates:
        raise NoKeyslotError(
            f"no usable keyslot: {len(metadata.keyslots)} in the header, none bound to "
            f"segment {segment} "
            "and of normal or preferred priority"
        )
    return candidates


def find_bound(metadata: Metadata, segment: int) -> frozenset[int]:
    """The keyslots whose key is, by its digest, that of the segment; all others are unbound."""
    digests = [digest for digest in metadata.digests if segment in digest.segments]
    return frozenset(number for digest in digests for number in digest.keyslots)


def make_spec(slot: Keyslot) -> KeyslotSpec:
    """The keyslot as the engine takes it.

    Raises:
        FormatError: a salt, size or cost that cannot be.
        UnsupportedError: a KDF that the engine does not have.
        PolicyError: a KDF that takes too long.
    """
    path = f"keyslots.{slot.id}"
    assert slot.kdf is not None
    assert slot.af is not None
    assert slot.area.encryption is not None
    area_key_size = _bounded(f"{path}.area.key_size", slot.area.key_size)
    key_size = _bounded(f"{path}.key_size", slot.key_size)
    needed = key_size * STRIPES
    if slot.area.extent.length < needed:
        raise FormatError(
            f"{path}.area.size: {slot.area.extent.length}, a key of {key_size} bytes needs {needed}"
        )
    return KeyslotSpec(
        key_size=key_size,
        stripes=STRIPES,
        af_hash=slot.af.hash,
        area_offset=slot.area.extent.offset,
        area_length=slot.area.extent.length,
        area_cipher=slot.area.encryption,
        area_key_size=area_key_size,
        kdf=_make_kdf(slot.kdf, f"{path}.kdf"),
    )


def decode_base64(path: str, text: str | None, most: int) -> bytes:
    """The bytes behind base64 text.

    Raises:
        FormatError: missing, not base64, or longer than ``most`` bytes.
    """
    if text is None:
        raise FormatError(f"{path}: missing")
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{path}: not base64") from error
    if not 0 < len(value) <= most:
        raise FormatError(f"{path}: {len(value)} bytes, wanted 1 to {most}")
    return value


def _make_kdf(kdf: Kdf, path: str) -> KdfSpec:
    if kdf.type not in KDF_TYPES:
        raise UnsupportedError(
            f"{path}.type: {kdf.type} is not supported, wanted {', '.join(KDF_TYPES)}"
        )
    salt = decode_base64(f"{path}.salt", kdf.salt, SALT_MAX)
    if kdf.type == "pbkdf2":
        iterations = _bounded(f"{path}.iterations", kdf.iterations)
        check_pbkdf2(path, iterations)
        return KdfSpec(KdfType.PBKDF2, salt, iterations, hash_name=kdf.hash or "")
    passes = _bounded(f"{path}.time", kdf.time)
    memory = _bounded(f"{path}.memory", kdf.memory)
    lanes = _bounded(f"{path}.cpus", kdf.cpus)
    check_argon2(path, passes=passes, memory_kib=memory, lanes=lanes)
    return KdfSpec(KDF_TYPES[kdf.type], salt, passes, memory_kib=memory, lanes=lanes)


def _bounded(path: str, value: int | None) -> int:
    if value is None or not 0 < value <= UINT32_MAX:
        raise FormatError(f"{path}: got {value}, wanted 1 to {UINT32_MAX}")
    return value
