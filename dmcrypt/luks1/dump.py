"""LUKS1 headers as text, laid out as cryptsetup's luksDump prints them, and as JSON of our own."""

from __future__ import annotations

from collections.abc import Iterator

from ..units import SECTOR_SIZE
from .header import VERSION, Keyslot, Luks1Header


def dump_text(header: Luks1Header, path: str) -> str:
    """What ``cryptsetup luksDump PATH`` prints."""
    return "".join(f"{line}\n" for line in _dump(header, path))


def dump_fields(header: Luks1Header) -> dict[str, object]:
    """The header for JSON; places in bytes, salts and digest in hexadecimal."""
    return {
        "version": VERSION,
        "uuid": header.uuid,
        "cipher": header.cipher,
        "hash": header.hash_name,
        "payload_offset": header.payload_offset,
        "key_size": header.key_size,
        "digest": {
            "iterations": header.digest_iterations,
            "salt": header.digest_salt.hex(),
            "digest": header.digest.hex(),
        },
        "keyslots": {
            str(number): {
                "iterations": slot.iterations,
                "salt": slot.salt.hex(),
                "area_offset": slot.area_offset,
                "stripes": slot.stripes,
            }
            for number, slot in enumerate(header.keyslots)
            if slot.is_enabled
        },
    }


def _dump(header: Luks1Header, path: str) -> Iterator[str]:
    yield f"LUKS header information for {path}"
    yield ""
    yield f"Version:       \t{VERSION}"
    yield f"Cipher name:   \t{header.cipher_name}"
    yield f"Cipher mode:   \t{header.cipher_mode}"
    yield f"Hash spec:     \t{header.hash_name}"
    yield f"Payload offset:\t{header.payload_offset // SECTOR_SIZE}"
    yield f"MK bits:       \t{header.key_size * 8}"
    yield f"MK digest:     \t{_hex(header.digest)}"
    yield f"MK salt:       \t{_hex(header.digest_salt[:16])}"
    yield f"               \t{_hex(header.digest_salt[16:])}"
    yield f"MK iterations: \t{header.digest_iterations}"
    yield f"UUID:          \t{header.uuid}"
    yield ""
    for number, slot in enumerate(header.keyslots):
        yield from _keyslot(number, slot)


def _keyslot(number: int, slot: Keyslot) -> Iterator[str]:
    if not slot.is_enabled:
        yield f"Key Slot {number}: DISABLED"
        return
    yield f"Key Slot {number}: ENABLED"
    yield f"\tIterations:         \t{slot.iterations}"
    yield f"\tSalt:               \t{_hex(slot.salt[:16])}"
    yield f"\t                      \t{_hex(slot.salt[16:])}"
    yield f"\tKey material offset:\t{slot.area_offset // SECTOR_SIZE}"
    yield f"\tAF stripes:            \t{slot.stripes}"


def _hex(value: bytes) -> str:
    return "".join(f"{byte:02x} " for byte in value)
