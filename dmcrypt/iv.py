"""What dm-crypt's IV modes are: plain definitions, slow and whole.

The engine has the fast forms (engine/src/iv.c, lmk.c, tcw.c, elephant.c); tests compare the two.
Nothing else uses this module: keys and data of a volume never come here. ``random`` is not here:
it needs a place beside each sector, which only integrity has.

Source: Linux drivers/md/dm-crypt.c, "Different IV generation algorithms", and crypt_ctr_ivmode.

A *number* is dm-crypt's iv_sector: the sector's number within the device plus the IV offset, in
512-byte sectors, modulo 2^64; divided by the sector size with ``iv_large_sectors``. An IV is as
long as the mode's: one block of the cipher, of Adiantum 32 bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import Final, Protocol

#: Enciphers one block with a key that the caller knows.
Encrypt = Callable[[bytes], bytes]

TCW_WHITENING_SIZE: Final = 16
LMK_SEED_SIZE: Final = 64
_WORD: Final = 0xFFFFFFFF
_NUMBER: Final = 0xFFFFFFFFFFFFFFFF


class IvGenerator(Protocol):
    """An IV from nothing but a number."""

    def __call__(self, number: int, size: int) -> bytes:
        """The ``size`` bytes of the IV of sector ``number``."""
        ...


def null(number: int, size: int) -> bytes:  # noqa: ARG001 (as all the others)
    """Zeros, whatever the sector: for what another tool wrote without an IV."""
    return bytes(size)


def plain(number: int, size: int) -> bytes:
    """The low 32 bits, little-endian: repeats after 2 TiB."""
    return (number & _WORD).to_bytes(size, "little")


def plain64(number: int, size: int) -> bytes:
    """All 64 bits, little-endian."""
    return number.to_bytes(size, "little")


def plain64be(number: int, size: int) -> bytes:
    """All 64 bits, big-endian, at the end."""
    return number.to_bytes(size, "big")


#: The modes that need no cipher. ``essiv`` begins as plain64.
IV_GENERATORS: Final[dict[str, IvGenerator]] = {
    "null": null,
    "plain": plain,
    "plain64": plain64,
    "plain64be": plain64be,
}


def benbi(number: int, size: int, block: int) -> bytes:
    """The number of the sector's first cipher block, counted from 1, big-endian, at the end.

    ``block`` is what the mode works on: the cipher's block, 1 of ctr. Made for lrw.
    """
    return ((number * (512 // block) + 1) & _NUMBER).to_bytes(size, "big")


def essiv(number: int, size: int, encrypt: Encrypt) -> bytes:
    """plain64, enciphered with the hash of the whole key (essiv:HASH) as key."""
    return encrypt(plain64(number, size))


def eboiv(number: int, size: int, sector_size: int, encrypt: Encrypt) -> bytes:
    """The byte offset, little-endian, enciphered with the volume key itself: BitLocker's.

    ``encrypt`` takes the offset as the IV of a block of zeros; in cbc that is the bare cipher. With
    several keys it is the first one.
    """
    return encrypt((number * sector_size & _NUMBER).to_bytes(size, "little"))


def tcw(number: int, size: int, seed: bytes) -> bytes:
    """TrueCrypt's: the number, little-endian and repeated, XORed with the key's IV seed.

    The key ends with the seed, as long as an IV, and `TCW_WHITENING_SIZE` bytes of whitening.
    """
    repeated = number.to_bytes(8, "little") * 2
    return _xor(seed[:size], repeated[:size])


def tcw_whiten(ciphertext: bytes, number: int, whitening: bytes) -> bytes:
    """The enciphered sector as it is on the disk, and back: 8 bytes, XORed all over it.

    They are made of whitening and number by CRC-32 without any inversion.
    """
    mixed = _xor(whitening, number.to_bytes(8, "little") * 2)
    sums = [_crc32(mixed[at : at + 4]) for at in range(0, 16, 4)]
    mask = struct.pack("<II", sums[0] ^ sums[3], sums[1] ^ sums[2])
    return _xor(ciphertext, mask * (len(ciphertext) // 8))


def lmk(number: int, size: int, plaintext: bytes, seed: bytes = b"") -> bytes:
    """loop-AES's: MD5's state, without its padding, over the sector behind its first 16 bytes.

    Before it goes the seed of version 3, 16 bytes of the 65th key, filled up with zeros to
    `LMK_SEED_SIZE`; behind it 56 bits of the number. So the first block depends on all the others:
    a reader deciphers with an IV of zeros, and then XORs this into the first block.
    """
    tail = struct.pack("<IIII", number & _WORD, number >> 32 & 0xFFFFFF | 0x80000000, 4024, 0)
    filled = seed.ljust(LMK_SEED_SIZE, b"\0") if seed else b""
    return _md5_state(filled + plaintext[16:] + tail)[:size]


def elephant_encrypt(plaintext: bytes, number: int, encrypt: Encrypt) -> bytes:
    """BitLocker's diffuser, before a sector is enciphered (with an IV of eboiv).

    ``encrypt`` is AES with the second half of the key.
    """
    data = _xor(plaintext, _elephant_key(plaintext, number, encrypt))
    words = list(struct.unpack(f"<{len(data) // 4}I", data))
    _diffuse(words, -2, -5, (9, 0, 13, 0), rounds=5, sign=-1)
    _diffuse(words, 2, 5, (0, 10, 0, 25), rounds=3, sign=-1)
    return struct.pack(f"<{len(words)}I", *words)


def elephant_decrypt(mixed: bytes, number: int, encrypt: Encrypt) -> bytes:
    """The plaintext of what `elephant_encrypt` made."""
    words = list(struct.unpack(f"<{len(mixed) // 4}I", mixed))
    _diffuse(words, 2, 5, (0, 10, 0, 25), rounds=3, sign=1)
    _diffuse(words, -2, -5, (9, 0, 13, 0), rounds=5, sign=1)
    data = struct.pack(f"<{len(words)}I", *words)
    return _xor(data, _elephant_key(mixed, number, encrypt))


def _elephant_key(sector: bytes, number: int, encrypt: Encrypt) -> bytes:
    offset = (number * len(sector) & _NUMBER).to_bytes(8, "little")
    key = encrypt(offset + bytes(8)) + encrypt(offset + bytes(7) + b"\x80")
    return key * (len(sector) // len(key))


def _diffuse(
    words: list[int], near: int, far: int, turns: tuple[int, ...], *, rounds: int, sign: int
) -> None:
    """Ferguson, "AES-CBC + Elephant diffuser", 4.5: word by word; backwards to undo it."""
    count = len(words)
    order = range(count) if sign > 0 else range(count - 1, -1, -1)
    for _ in range(rounds):
        for i in order:
            mixed = words[(i + near) % count] ^ _rotate(words[(i + far) % count], turns[i % 4])
            words[i] = (words[i] + sign * mixed) & _WORD


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _WORD


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _crc32(data: bytes) -> int:
    return zlib.crc32(data, _WORD) ^ _WORD


#: RFC 1321, 3.4: the table of sines, and how far each round turns.
_SINES: Final = tuple(int(abs(math.sin(i + 1)) * 2**32) for i in range(64))
_TURNS: Final = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))


def _md5_state(message: bytes) -> bytes:
    """What MD5 holds after whole blocks of 64 bytes, before it pads."""
    state: tuple[int, ...] = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
    for at in range(0, len(message), 64):
        state = _md5_block(state, struct.unpack_from("<16I", message, at))
    return struct.pack("<4I", *state)


def _md5_block(state: tuple[int, ...], words: tuple[int, ...]) -> tuple[int, ...]:
    a, b, c, d = state
    for i in range(64):
        match i // 16:
            case 0:
                mixed, at = b & c | ~b & d, i
            case 1:
                mixed, at = d & b | ~d & c, 5 * i + 1
            case 2:
                mixed, at = b ^ c ^ d, 3 * i + 5
            case _:
                mixed, at = c ^ (b | ~d & _WORD), 7 * i
        total = (a + mixed + _SINES[i] + words[at % 16]) & _WORD
        a, d, c, b = d, c, b, (b + _rotate(total, _TURNS[i // 16][i % 4])) & _WORD
    return tuple((old + new) & _WORD for old, new in zip(state, (a, b, c, d), strict=True))
