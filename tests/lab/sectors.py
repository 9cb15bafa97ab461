"""A second implementation of dm-crypt's sector ciphers, over the `cryptography` package.

Slow and simple on purpose: tests compare the engine with it. AES only, in XTS and CBC.
"""

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def initial_vector(iv: str, number: int, key: bytes) -> bytes:
    """The 16 bytes that dm-crypt's generator ``iv`` makes for one sector number."""
    name, _, option = iv.partition(":")
    if name == "plain":
        return (number & 0xFFFFFFFF).to_bytes(4, "little").ljust(16, b"\0")
    if name == "plain64":
        return (number % (1 << 64)).to_bytes(8, "little").ljust(16, b"\0")
    if name == "plain64be":
        return number.to_bytes(8, "big").rjust(16, b"\0")
    if name == "essiv":
        salt = hashlib.new(option, key).digest()
        encryptor = Cipher(algorithms.AES(salt), modes.ECB()).encryptor()
        return encryptor.update(number.to_bytes(8, "little").ljust(16, b"\0"))
    raise ValueError(f"no IV generator {iv} here")


def _xts_192(data: bytes, key: bytes, vector: bytes, *, encrypt: bool) -> bytes:
    """XTS with 192-bit halves (IEEE 1619, 5.3), which OpenSSL does not offer."""
    tweak = int.from_bytes(
        Cipher(algorithms.AES(key[24:]), modes.ECB()).encryptor().update(vector), "little"
    )
    mask = bytearray()
    for _ in range(0, len(data), 16):
        mask += tweak.to_bytes(16, "little")
        tweak = (tweak << 1) ^ (0x87 if tweak >> 127 else 0)
        tweak &= (1 << 128) - 1
    whole = int.from_bytes(mask, "little")
    context = Cipher(algorithms.AES(key[:24]), modes.ECB())
    worker = context.encryptor() if encrypt else context.decryptor()
    masked = (int.from_bytes(data, "little") ^ whole).to_bytes(len(data), "little")
    inner = int.from_bytes(worker.update(masked), "little")
    return (inner ^ whole).to_bytes(len(data), "little")


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
    name, mode, iv = cipher.split("-", 2)
    if name != "aes":
        raise ValueError(f"no cipher {name} here")
    step = 1 if large_sectors else sector_size // 512
    result = bytearray()
    for number, start in enumerate(range(0, len(data), sector_size)):
        vector = initial_vector(iv, first_iv + number * step, key)
        if mode == "xts" and len(key) == 48:
            sector = data[start : start + sector_size]
            result += _xts_192(sector, key, vector, encrypt=encrypt)
            continue
        chain = modes.XTS(vector) if mode == "xts" else modes.CBC(vector)
        context = Cipher(algorithms.AES(key), chain)
        worker = context.encryptor() if encrypt else context.decryptor()
        result += worker.update(data[start : start + sector_size])
    return bytes(result)
