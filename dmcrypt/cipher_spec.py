"""dm-crypt's cipher names: text to a value, and which of them we serve.

Source: Linux Documentation/admin-guide/device-mapper/dm-crypt.rst
(``cipher[:keycount]-chainmode-ivmode[:ivopts]``), drivers/md/dm-crypt.c (crypt_ctr_cipher_old) for
the short forms; arch/s390/crypto/paes_s390.c for ``paes``, AES whose key is given as a secure or
protected key. Key areas of LUKS2 may name any cipher that the engine has; what is here concerns
data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from ..keystore.errors import ConfigError, UnsupportedError

#: Key sizes in bytes by mode: XTS takes two AES keys.
_KEY_SIZES: Final = {"xts": (32, 48, 64), "cbc": (16, 24, 32)}
#: What paes takes, by mode: tokens of CCA-AESDATA, CCA-AESCIPHER, protected keys (pkey.h), and the
#: sizes of clear keys, as the kernel does.
_SECURE_KEY_SIZES: Final = {
    "xts": (128, 272, 80, 112, 160, 32, 64),
    "cbc": (64, 136, 80, 16, 24, 32),
}
_EP11_SIZES: Final = (320, 336, 640, 672)
_IVS: Final = ("plain", "plain64", "plain64be", "essiv")
#: The hash's digest is the key of ESSIV's AES, so only some hashes fit. Digest sizes in bytes.
_ESSIV_HASHES: Final = {
    "md5": 16,
    "sha256": 32,
    "sha3-256": 32,
    "blake2b-256": 32,
    "blake2s-128": 16,
    "blake2s-256": 32,
    "sm3": 32,
}
SUPPORTED: Final = (
    "aes-xts and aes-cbc with plain, plain64, plain64be or essiv:HASH, and paes without essiv"
)
_PARTS: Final = re.compile(r"([^-:\s]+)(?:-([^-:\s]+))?(?:-([^-:\s]+)(?::([^:\s]+))?)?")


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """A cipher that data segments may use."""

    cipher: str
    mode: str
    iv: str
    iv_hash: str = ""  # of essiv

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``aes-xts-plain64`` and the like; ``aes`` is dm-crypt's short form of aes-cbc-plain.

        Raises:
            UnsupportedError: well-formed, but none that we serve; names what is not.
            ConfigError: no cipher name at all.
        """
        if text.startswith("capi:"):
            raise UnsupportedError(
                f"cipher {text}: capi: names are not supported, only {SUPPORTED}"
            )
        match = _PARTS.fullmatch(text)
        if match is None:
            unknown = re.fullmatch(r"[^\s]+", text) is not None
            raise (UnsupportedError if unknown else ConfigError)(
                f"cipher {text!r}: not a name we know, wanted {SUPPORTED}"
            )
        cipher, mode, iv, option = match.groups()
        if mode is None or (mode == "plain" and iv is None):
            mode, iv = "cbc", "plain"
        if cipher not in ("aes", "paes"):
            raise UnsupportedError(f"cipher {text}: {cipher} is not supported, only {SUPPORTED}")
        if mode not in _KEY_SIZES:
            raise UnsupportedError(f"cipher {text}: mode {mode} is not supported, only {SUPPORTED}")
        if iv is None:
            raise ConfigError(f"cipher {text}: names no IV, wanted {SUPPORTED}")
        if iv not in _IVS:
            raise UnsupportedError(f"cipher {text}: IV {iv} is not supported, only {SUPPORTED}")
        if cipher == "paes" and iv == "essiv":
            # Its IV key is a hash of the key, which nobody has.
            raise UnsupportedError(f"cipher {text}: essiv is not possible with a secure key")
        _check_iv_option(text, iv, option)
        return cls(cipher, mode, iv, option or "")

    @property
    def dm_name(self) -> str:
        """As dm-crypt and LUKS2 headers spell it."""
        option = f":{self.iv_hash}" if self.iv_hash else ""
        return f"{self.cipher}-{self.mode}-{self.iv}{option}"

    @property
    def is_xts(self) -> bool:
        """Whether its key is two keys, which must differ."""
        return self.mode == "xts"

    @property
    def takes_secure_keys(self) -> bool:
        """Whether its key is a token, which only a coprocessor or the engine can use."""
        return self.cipher == "paes"

    @property
    def effective(self) -> CipherSpec:
        """What sectors are enciphered with: of paes, AES with the key that is in the token."""
        return replace(self, cipher="aes")

    @property
    def key_sizes(self) -> tuple[int, ...]:
        """The key sizes it takes, in bytes."""
        return (_SECURE_KEY_SIZES if self.takes_secure_keys else _KEY_SIZES)[self.mode]

    def check_key_size(self, key_size: int) -> None:
        """Refuse a size (bytes) that is none of `key_sizes`.

        Raises:
            UnsupportedError: the size of an EP11 secure key.
            ConfigError: any other.
        """
        if self.takes_secure_keys and key_size in _EP11_SIZES:
            raise UnsupportedError(
                f"cipher {self.dm_name}: a key of {key_size * 8} bits is an EP11-AES secure key, "
                "which is not supported; wanted CCA-AESDATA or CCA-AESCIPHER"
            )
        if key_size not in self.key_sizes:
            wanted = ", ".join(str(size * 8) for size in self.key_sizes)
            raise ConfigError(
                f"cipher {self.dm_name}: a key of {key_size * 8} bits, wanted {wanted}"
            )


def _check_iv_option(text: str, iv: str, option: str | None) -> None:
    if iv != "essiv":
        if option is not None:
            raise ConfigError(f"cipher {text}: IV {iv} takes no option, got {option}")
        return
    if option is None:
        raise ConfigError(f"cipher {text}: essiv names no hash, wanted such as essiv:sha256")
    if option not in _ESSIV_HASHES:
        fitting = ", ".join(_ESSIV_HASHES)
        raise UnsupportedError(
            f"cipher {text}: essiv with {option} is not supported, only with {fitting}"
        )
