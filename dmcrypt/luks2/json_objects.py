"""What is new in a LUKS2 header, as JSON objects with their fields in cryptsetup's order. No I/O.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; lib/luks2/luks2_json_format.c.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Final

from ..engine.messages import DigestSpec, Kdf, KdfType, KeyslotSpec
from ..pbkdf import KDF_TYPES
from .json_area import JsonObject

_KDF_NAMES: Final = {kind: name for name, kind in KDF_TYPES.items()}


def make_root(
    *,
    keyslots: Mapping[int, KeyslotSpec],
    digest: DigestSpec,
    encryption: str,
    data_offset: int,
    sector_size: int,
    json_size: int,
    keyslots_size: int,
) -> JsonObject:
    """The JSON object of a new header: keyslots for one volume key, one segment; sizes in bytes."""
    return {
        "keyslots": {str(number): pack_keyslot(spec) for number, spec in keyslots.items()},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": str(data_offset),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": encryption,
                "sector_size": sector_size,
            }
        },
        "digests": {"0": pack_digest(digest, keyslots=keyslots, segments=[0])},
        "config": {"json_size": str(json_size), "keyslots_size": str(keyslots_size)},
    }


def pack_keyslot(spec: KeyslotSpec) -> JsonObject:
    """A keyslot (sec. 3.2)."""
    return {
        "type": "luks2",
        "key_size": spec.key_size,
        "af": {"type": "luks1", "stripes": spec.stripes, "hash": spec.af_hash},
        "area": {
            "type": "raw",
            "offset": str(spec.area_offset),
            "size": str(spec.area_length),
            "encryption": spec.area_cipher,
            "key_size": spec.area_key_size,
        },
        "kdf": _pack_kdf(spec.kdf),
    }


def pack_digest(
    digest: DigestSpec, *, keyslots: Iterable[int], segments: Iterable[int]
) -> JsonObject:
    """A digest (sec. 3.4) of the key that these keyslots hold, and these segments have."""
    return {
        "type": "pbkdf2",
        "keyslots": [str(number) for number in keyslots],
        "segments": [str(number) for number in segments],
        "hash": digest.hash_name,
        "iterations": digest.iterations,
        "salt": _base64(digest.salt),
        "digest": _base64(digest.digest),
    }


def inherit(new: JsonObject, old: JsonObject) -> JsonObject:
    """What takes the place of ``old``, with what that had besides: a priority, fields of others."""
    return {**new, **{name: value for name, value in old.items() if name not in new}}


def _pack_kdf(kdf: Kdf) -> JsonObject:
    name, salt = _KDF_NAMES[kdf.type], _base64(kdf.salt)
    if kdf.type is KdfType.PBKDF2:
        return {"type": name, "hash": kdf.hash_name, "iterations": kdf.iterations, "salt": salt}
    return {
        "type": name,
        "time": kdf.iterations,
        "memory": kdf.memory_kib,
        "cpus": kdf.lanes,
        "salt": salt,
    }


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
