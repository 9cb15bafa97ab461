"""Which ciphers, modes and IVs the engine has, with the sizes of their keys: the tables.

Source: the kernel's crypto/*.c for key and block sizes; libgcrypt's manual, "Available ciphers",
for what it lacks of them. engine/src/cipher_spec.c has the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cipher:
    """A cipher without its mode; sizes in bytes."""

    block: int
    key_sizes: tuple[int, ...]
    only_mode: str = ""  # empty: any


CIPHERS: Final = {
    "aes": Cipher(16, (16, 24, 32)),
    "serpent": Cipher(16, tuple(range(4, 33, 4))),
    "twofish": Cipher(16, (16, 32)),
    "camellia": Cipher(16, (16, 24, 32)),
    "cast5": Cipher(8, (16,)),
    "blowfish": Cipher(8, tuple(range(4, 57))),
    "des3_ede": Cipher(8, (24,)),
    "des": Cipher(8, (8,)),
    "xchacha20,aes": Cipher(16, (32,), "adiantum"),
}

_NOT_IN_LIBGCRYPT: Final = "libgcrypt has none"
_UNPROVEN: Final = "the kernels that volumes are compared with have none"
#: What the kernel has and we refuse, and why.
ABSENT: Final = {
    "cast6": _NOT_IN_LIBGCRYPT,
    "aria": _NOT_IN_LIBGCRYPT,
    "anubis": _NOT_IN_LIBGCRYPT,
    "khazad": _NOT_IN_LIBGCRYPT,
    "tea": _NOT_IN_LIBGCRYPT,
    "xtea": _NOT_IN_LIBGCRYPT,
    "xeta": _NOT_IN_LIBGCRYPT,
    "fcrypt": _NOT_IN_LIBGCRYPT,
    "sm4": _UNPROVEN,
    "seed": _UNPROVEN,
    "xchacha12,aes": "libgcrypt has no ChaCha of 12 rounds",
}

MODES: Final = ("xts", "cbc", "ctr", "ecb", "lrw", "pcbc", "adiantum")
NO_IV_MODES: Final = ("ecb",)

#: IVs that keep a part of the key for themselves and work on the data, too.
DATA_IVS: Final = ("lmk", "tcw", "elephant")
IVS: Final = (
    *("plain", "plain64", "plain64be", "essiv", "benbi", "null", "eboiv"),
    *DATA_IVS,
)

#: The hash's digest is the key of ESSIV's cipher, so only some hashes fit. Bytes.
DIGEST_SIZES: Final = {
    "md4": 16,
    "md5": 16,
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha512-224": 28,
    "sha512-256": 32,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
    "blake2b-160": 20,
    "blake2b-256": 32,
    "blake2b-384": 48,
    "blake2b-512": 64,
    "blake2s-128": 16,
    "blake2s-160": 20,
    "blake2s-224": 28,
    "blake2s-256": 32,
    "ripemd160": 20,
    "rmd160": 20,
    "whirlpool": 64,
    "wp512": 64,
    "sm3": 32,
    "stribog256": 32,
    "stribog512": 64,
    "tiger": 24,
}

#: What paes takes, by mode: tokens of CCA-AESDATA, CCA-AESCIPHER, EP11-AES, PKCS11-AES,
#: protected keys (pkey.h), and the sizes of clear keys, as the kernel does but for PKCS11-AES.
SECURE_KEY_SIZES: Final = {
    "xts": (128, 272, 640, 672, 192, 80, 112, 160, 32, 64),
    "cbc": (64, 136, 320, 336, 96, 80, 16, 24, 32),
}
#: Those of them that are clear keys: what a forgotten --key-size leaves of a token has such a size.
CLEAR_KEY_SIZES: Final = {"xts": (32, 64), "cbc": (16, 24, 32)}
SECURE_KEY_IVS: Final = ("plain", "plain64", "plain64be", "benbi", "null", "eboiv")

SUPPORTED: Final = (
    "aes, serpent, twofish, camellia, des3_ede, blowfish, cast5 or des in xts, cbc, "
    "ctr, ecb, lrw or pcbc with plain, plain64, plain64be, essiv:HASH, benbi, null, eboiv, "
    "elephant, lmk or tcw; xchacha20,aes-adiantum; cipher_null-ecb; paes in xts or cbc"
)
