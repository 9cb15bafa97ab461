"""A second implementation of dm-crypt's sector ciphers, over the `cryptography` package.

Slow and simple on purpose: tests compare the engine with it. Modes are made of single blocks where
the package has none; IVs are those that ``dmcrypt/iv.py`` defines. It has no Serpent, no Twofish
and no Adiantum: those are compared with the kernel only.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.dmcrypt import iv as ivs

ALGORITHMS: dict[str, Any] = {
    "aes": algorithms.AES,
    "camellia": decrepit.Camellia,
    "cast5": decrepit.CAST5,
    "blowfish": decrepit.Blowfish,
    "des3_ede": decrepit.TripleDES,
    "des": lambda key: decrepit.TripleDES(key * 3),
}
BLOCKS = {"cast5": 8, "blowfish": 8, "des3_ede": 8, "des": 8}
NUMBERS = 1 << 64
ALL_OF_128 = (1 << 128) - 1


@dataclass(frozen=True)
class Words:
    """A cipher's name, taken apart."""

    cipher: str
    mode: str
    iv: str = ""
    hash_name: str = ""
    keys: int = 1

    @property
    def block(self) -> int:
        return BLOCKS.get(self.cipher, 16)


def parse(name: str) -> Words:
    outside = re.fullmatch(r"capi:essiv\((\w+)\((\w+)\),([^)]+)\)-(\w+)", name)
    if outside:
        mode, cipher, hash_name, iv = outside.groups()
        return Words(cipher, mode, iv, hash_name)
    if capi := re.fullmatch(r"capi:(\w+)\(([^)]+)\)(?:-(\w+)(?::(.+))?)?", name):
        mode, cipher, iv, hash_name = capi.groups()
        return Words(cipher, mode, iv or "", hash_name or "")
    cipher, mode, iv = (*name.split("-", 2), "")[:3]
    cipher, _, keys = cipher.partition(":")
    iv, _, hash_name = iv.partition(":")
    return Words(cipher, mode, iv, hash_name, int(keys or 1))


def has(name: str) -> bool:
    """Whether there is a second implementation of a cipher."""
    words = parse(name)
    return words.cipher in ALGORITHMS or words.cipher == "cipher_null"


def crypt(
    data: bytes,
    cipher: str,
    key: bytes,
    *,
    sector_size: int = 512,
    first_iv: int = 0,
    large_sectors: bool = False,
    encrypt: bool = False,
) -> bytes:
    """Encipher or decipher whole sectors.

    ``first_iv`` is the IV number of the first sector, in units of 512 bytes, or of
    ``sector_size`` with ``large_sectors``.
    """
    words = parse(cipher)
    if words.cipher == "cipher_null":
        return bytes(data)
    keys = _Keys(words, key)
    step = sector_size // 512
    result = bytearray()
    for index, start in enumerate(range(0, len(data), sector_size)):
        sector = data[start : start + sector_size]
        # dm-crypt's cc_sector, of 64 bits; large sectors divide it afterwards.
        whole = (first_iv + index) * step if large_sectors else first_iv + index * step
        whole %= NUMBERS
        number = whole // step if large_sectors else whole
        which = whole % words.keys
        result += _crypt_sector(sector, keys, keys.keys[which], number, encrypt=encrypt)
    return bytes(result)


class _Keys:
    """What dm-crypt makes of a key: crypt_ctr_ivmode, crypt_setkey."""

    def __init__(self, words: Words, key: bytes) -> None:
        self.words = words
        extra = 0
        if words.iv == "tcw":
            extra = words.block + ivs.TCW_WHITENING_SIZE
        elif words.iv == "elephant":
            extra = len(key) // 2
        elif words.iv == "lmk" and len(key) % words.keys:
            extra = len(key) // (words.keys + 1)
        size = (len(key) - extra) // words.keys
        self.keys = [key[i * size : (i + 1) * size] for i in range(words.keys)]
        self.extra = key[words.keys * size :]


def _crypt_sector(data: bytes, keys: _Keys, key: bytes, number: int, *, encrypt: bool) -> bytes:
    words = keys.words
    if words.iv == "lmk":
        seed = keys.extra[:16]
        if encrypt:
            made = ivs.lmk(number, words.block, data, seed)
            return _chain(data, words, key, made, encrypt=True)
        out = _chain(data, words, key, bytes(words.block), encrypt=False)
        return (
            _xor(out[: words.block], ivs.lmk(number, words.block, out, seed)) + (out[words.block :])
        )
    made = make_iv(words, keys.keys[0], key, keys.extra, number, len(data))
    if words.iv == "tcw":
        whitening = keys.extra[words.block :]
        if encrypt:
            enciphered = _chain(data, words, key, made, encrypt=True)
            return ivs.tcw_whiten(enciphered, number, whitening)
        return _chain(ivs.tcw_whiten(data, number, whitening), words, key, made, encrypt=False)
    if words.iv == "elephant":
        tweak = _block_cipher("aes", keys.extra)
        if encrypt:
            mixed = ivs.elephant_encrypt(data, number, tweak)
            return _chain(mixed, words, key, made, encrypt=True)
        return ivs.elephant_decrypt(_chain(data, words, key, made, encrypt=False), number, tweak)
    return _chain(data, words, key, made, encrypt=encrypt)


def make_iv(
    words: Words, first_key: bytes, key: bytes, extra: bytes, number: int, sector_size: int
) -> bytes:
    """The IV of one sector."""
    block = words.block
    match words.iv:
        case "":
            made = b""
        case "benbi":
            made = ivs.benbi(number, block, 1 if words.mode == "ctr" else block)
        case "essiv":
            made = ivs.plain64(number, block)
        case "eboiv" | "elephant":

            def encrypt(vector: bytes) -> bytes:
                return _chain(bytes(block), words, first_key, vector, encrypt=True)

            made = ivs.eboiv(number, block, sector_size, encrypt)
        case "tcw":
            made = ivs.tcw(number, block, extra)
        case other:
            made = ivs.IV_GENERATORS[other](number, block)
    if words.hash_name:
        name = words.hash_name.replace("sha3-", "sha3_").replace("blake2s-256", "blake2s")
        made = _block_cipher(words.cipher, hashlib.new(name, key).digest())(made)
    return made


def _block_cipher(cipher: str, key: bytes, *, encrypt: bool = True) -> Callable[[bytes], bytes]:
    """ECB over any number of whole blocks."""
    context = Cipher(ALGORITHMS[cipher](key), modes.ECB())

    def run(data: bytes) -> bytes:
        worker = context.encryptor() if encrypt else context.decryptor()
        return worker.update(data)

    return run


def _chain(data: bytes, words: Words, key: bytes, vector: bytes, *, encrypt: bool) -> bytes:
    match words.mode:
        case "ecb":
            return _block_cipher(words.cipher, key, encrypt=encrypt)(data)
        case "ctr":
            return _ctr(data, words, key, vector)
        case "pcbc":
            return _pcbc(data, words, key, vector, encrypt=encrypt)
        case "lrw":
            crypt_blocks = _block_cipher(words.cipher, key[:-16], encrypt=encrypt)
            return _masked(data, _lrw_mask(key[-16:], vector, len(data)), crypt_blocks)
        case "xts" if words.cipher != "aes" or len(key) == 48:
            half = len(key) // 2
            tweak = _block_cipher(words.cipher, key[half:])(vector)
            crypt_blocks = _block_cipher(words.cipher, key[:half], encrypt=encrypt)
            return _masked(data, _xts_mask(tweak, len(data)), crypt_blocks)
    chain = modes.XTS(vector) if words.mode == "xts" else modes.CBC(vector)
    context = Cipher(ALGORITHMS[words.cipher](key), chain)
    worker = context.encryptor() if encrypt else context.decryptor()
    return worker.update(data)


def _ctr(data: bytes, words: Words, key: bytes, vector: bytes) -> bytes:
    block, start = words.block, int.from_bytes(vector, "big")
    counters = b"".join(
        ((start + i) % (1 << 8 * block)).to_bytes(block, "big") for i in range(len(data) // block)
    )
    return _xor(data, _block_cipher(words.cipher, key)(counters))


def _pcbc(data: bytes, words: Words, key: bytes, vector: bytes, *, encrypt: bool) -> bytes:
    """Linux crypto/pcbc.c: each block's plaintext and ciphertext together are the next one's IV."""
    crypt_blocks = _block_cipher(words.cipher, key, encrypt=encrypt)
    out = b""
    for at in range(0, len(data), words.block):
        block = data[at : at + words.block]
        made = crypt_blocks(_xor(block, vector)) if encrypt else _xor(crypt_blocks(block), vector)
        vector = _xor(block, made)
        out += made
    return out


def _masked(data: bytes, mask: bytes, crypt_blocks: Callable[[bytes], bytes]) -> bytes:
    return _xor(crypt_blocks(_xor(data, mask)), mask)


def _xts_mask(first: bytes, size: int) -> bytes:
    """IEEE 1619, 5.2."""
    tweak, mask = int.from_bytes(first, "little"), bytearray()
    for _ in range(0, size, 16):
        mask += tweak.to_bytes(16, "little")
        tweak = ((tweak << 1) ^ (0x87 if tweak >> 127 else 0)) & ALL_OF_128
    return bytes(mask)


def _lrw_mask(tweak_key: bytes, vector: bytes, size: int) -> bytes:
    """Linux crypto/lrw.c: the tweak key times the block's index in GF(2^128), big-endian."""
    products, product = [], int.from_bytes(tweak_key, "big")
    for _ in range(128):
        products.append(product)
        product = ((product << 1) ^ (0x87 if product >> 127 else 0)) & ALL_OF_128
    mask = b""
    for block in range(size // 16):
        index, tweak = (int.from_bytes(vector, "big") + block) & ALL_OF_128, 0
        while index:
            low = index & -index
            tweak ^= products[low.bit_length() - 1]
            index ^= low
        mask += tweak.to_bytes(16, "big")
    return mask


def _xor(one: bytes, other: bytes) -> bytes:
    assert len(one) == len(other)
    size = len(one)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(size, "big")
