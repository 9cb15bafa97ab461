"""dm-crypt's cipher names: text to a value, and which of them we serve.

Source: Linux Documentation/admin-guide/device-mapper/dm-crypt.rst
(``cipher[:keycount]-chainmode-ivmode[:ivopts]`` and ``capi:api_spec-ivmode[:ivopts]``),
drivers/md/dm-crypt.c (crypt_ctr_cipher_old, crypt_ctr_cipher_new, crypt_ctr_ivmode);
arch/s390/crypto/paes_s390.c for ``paes``, AES whose key is given as a secure or protected key. The
engine has the same tables (engine/src/cipher_spec.c), and a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from ..keystore.errors import ConfigError, UnsupportedError
from .ciphers import (
    ABSENT,
    CIPHERS,
    CLEAR_KEY_SIZES,
    DATA_IVS,
    DIGEST_SIZES,
    IVS,
    MODES,
    NO_IV_MODES,
    SECURE_KEY_IVS,
    SECURE_KEY_SIZES,
    SUPPORTED,
    Cipher,
)
from .units import SECTOR_SIZE

_OLD: Final = re.compile(
    r"(?P<cipher>[^-:()\s]+)(?::(?P<keys>[^-:\s]*))?"
    r"(?:-(?P<mode>[^-:()\s]+))?(?:-(?P<iv>[^-:()\s]+)(?::(?P<option>[^:()\s]+))?)?"
)
_API: Final = r"(?P<mode>[^-:()\s]+)\((?P<cipher>[^-:()\s]+)\)"
_IV: Final = r"(?:-(?P<iv>[^-:()\s]+)(?::(?P<option>[^:()\s]+))?)?"
_CAPI: Final = re.compile(rf"capi:{_API}{_IV}")
_CAPI_ESSIV: Final = re.compile(rf"capi:essiv\({_API},(?P<hash>[^,:()\s]+)\){_IV}")

_NULL: Final = "cipher_null"
_KEYS_MAX: Final = 64
_BLOCK: Final = 16  # of xts and lrw
_TCW_WHITENING: Final = 16  # iv.TCW_WHITENING_SIZE, and the engine's
_LMK_SEED_MIN: Final = 16
_ELEPHANT_SIZES: Final = CIPHERS["aes"].key_sizes
#: Sizes to be listed one by one in a message.
_LISTED_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """A cipher that data may be enciphered with."""

    cipher: str
    mode: str
    iv: str  # empty: none, as of ecb
    iv_hash: str = ""  # of essiv
    keys: int = 1  # each sector takes one by its number
    is_capi: bool = False  # spelt in the kernel's own way
    essiv_is_outside: bool = False  # capi:essiv(mode(cipher),hash)-iv

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``aes-xts-plain64`` and the like; ``aes`` is dm-crypt's short form of aes-cbc-plain.

        Raises:
            UnsupportedError: well-formed, but none that we serve; names what is not.
            ConfigError: no cipher name at all.
        """
        spec = cls._parse_words(text)
        _check_cipher(text, spec)
        _check_iv(text, spec)
        _check_essiv(text, spec)
        return spec

    @classmethod
    def _parse_words(cls, text: str) -> Self:
        is_capi = text.startswith("capi:")
        outside = _CAPI_ESSIV.fullmatch(text)
        match = outside or (_CAPI if is_capi else _OLD).fullmatch(text)
        if match is None:
            unknown = re.fullmatch(r"\S+", text) is not None
            raise (UnsupportedError if unknown else ConfigError)(
                f"cipher {text!r}: not a name we know, wanted {SUPPORTED}"
            )
        mode, iv, option = match["mode"], match["iv"] or "", match["option"]
        if mode is None or (mode == "plain" and not iv):
            mode, iv = "cbc", "plain"
        if option is not None and iv != "essiv":
            raise ConfigError(f"cipher {text}: IV {iv} takes no option, got {option}")
        keys = None if is_capi else match["keys"]
        return cls(
            cipher=match["cipher"],
            mode=mode,
            iv=iv,
            iv_hash=outside["hash"] if outside else option or "",
            keys=1 if keys is None else _parse_key_count(text, keys),
            is_capi=is_capi,
            essiv_is_outside=outside is not None,
        )

    @property
    def dm_name(self) -> str:
        """As dm-crypt and LUKS2 headers spell it."""
        iv = f"-{self.iv}" if self.iv else ""
        if self.iv == "essiv":
            iv += f":{self.iv_hash}"
        if not self.is_capi:
            keys = f":{self.keys}" if self.keys > 1 else ""
            return f"{self.cipher}{keys}-{self.mode}{iv}"
        api = f"{self.mode}({self.cipher})"
        if self.essiv_is_outside:
            api = f"essiv({api},{self.iv_hash})"
        return f"capi:{api}{iv}"

    @property
    def is_xts(self) -> bool:
        """Whether its key is two keys, which must differ."""
        return self.mode == "xts" and self.keys == 1

    @property
    def is_null(self) -> bool:
        """Whether it enciphers nothing at all."""
        return self.cipher == _NULL

    @property
    def takes_secure_keys(self) -> bool:
        """Whether its key is a token, which only a coprocessor or the engine can use."""
        return self.cipher == "paes"

    @property
    def effective(self) -> CipherSpec:
        """What sectors are enciphered with: of paes, AES with the key that is in the token."""
        return replace(self, cipher="aes") if self.takes_secure_keys else self

    @property
    def weakness(self) -> str:
        """Why nobody should make a new volume with it; empty: there is nothing to say."""
        if self.is_null:
            return "cipher_null enciphers nothing"
        if self._cipher.block < _BLOCK:
            return (
                f"{self.cipher} has blocks of 64 bits, which repeat within a volume of some "
                "gigabytes (Sweet32)"
            )
        return ""

    @property
    def is_keyslot_cipher(self) -> bool:
        """Whether cryptsetup takes it for a keyslot's area, too; if not, that gets its default.

        Source: lib/luks2/luks2_keyslot.c, LUKS2_keyslot_cipher_incompatible.
        """
        return not (self.is_null or self.is_capi or self.takes_secure_keys or self.is_luks_alien)

    @property
    def is_luks_alien(self) -> bool:
        """Whether only tables have it: cryptsetup formats no volume with such a key."""
        return self.iv in DATA_IVS or self.keys > 1

    @property
    def default_key_size(self) -> int:
        """Bytes of a key that nobody gave a size for: 32, of XTS 64, or the most it takes."""
        if self.is_null:
            return 16
        wanted = 64 if self.is_xts else 32
        return wanted if wanted in self.key_sizes else max(self.key_sizes)

    @property
    def key_sizes(self) -> tuple[int, ...]:
        """The key sizes it takes, in bytes; of cipher_null none, as it takes any."""
        if self.is_null:
            return ()
        if self.takes_secure_keys:
            return SECURE_KEY_SIZES[self.mode]
        sizes = self._cipher.key_sizes
        if self.mode == "xts":
            sizes = tuple(2 * size for size in sizes)
        elif self.mode == "lrw":
            sizes = tuple(size + _BLOCK for size in sizes)
        totals = {self.keys * size for size in sizes}
        if self.iv == "tcw":
            totals = {size + self._iv_size + _TCW_WHITENING for size in totals}
        elif self.iv == "elephant":
            totals = {2 * size for size in totals if size in _ELEPHANT_SIZES}
        elif self.iv == "lmk" and self.keys > 1:
            # dm-crypt.c: a whole key that cannot be parted has one key more, the seed.
            seeded = (size for size in sizes if size >= _LMK_SEED_MIN and size % self.keys)
            totals |= {(self.keys + 1) * size for size in seeded}
        return tuple(sorted(totals))

    def is_clear_size(self, key_size: int) -> bool:
        """Whether paes takes a key of so many bytes for a clear one: no token is so short."""
        return self.takes_secure_keys and key_size in CLEAR_KEY_SIZES[self.mode]

    def check_key_size(self, key_size: int) -> None:
        """Refuse a size (bytes) that is none of `key_sizes`.

        Raises:
            ConfigError: it is none.
        """
        if key_size not in self.key_sizes and not self.is_null:
            raise ConfigError(
                f"cipher {self.dm_name}: a key of {key_size * 8} bits, wanted {self._wanted_bits}"
            )

    def check_sector_size(self, sector_size: int) -> None:
        """Refuse a sector size (bytes) that the IV cannot serve.

        Raises:
            ConfigError: lmk and tcw are made of sectors of 512 bytes.
        """
        if self.iv in ("lmk", "tcw") and sector_size != SECTOR_SIZE:
            raise ConfigError(
                f"cipher {self.dm_name}: IV {self.iv} with a sector size of {sector_size}, "
                f"wanted {SECTOR_SIZE}"
            )

    @property
    def _cipher(self) -> Cipher:
        return CIPHERS[self.effective.cipher]

    @property
    def _iv_size(self) -> int:
        return 32 if self.mode == "adiantum" else self._cipher.block

    @property
    def _wanted_bits(self) -> str:
        sizes = self.key_sizes
        if len(sizes) > _LISTED_MAX:
            step = (sizes[1] - sizes[0]) * 8
            return f"{sizes[0] * 8} to {sizes[-1] * 8} in steps of {step}"
        return ", ".join(str(size * 8) for size in sizes)


def _parse_key_count(text: str, keys: str) -> int:
    count = int(keys) if re.fullmatch("[0-9]{1,4}", keys) else 0
    if count == 0 or count & (count - 1):
        raise ConfigError(f"cipher {text}: {keys!r} keys, wanted a power of 2")
    if count > _KEYS_MAX:
        raise UnsupportedError(
            f"cipher {text}: {count} keys are not supported, at most {_KEYS_MAX}"
        )
    return count


def _check_cipher(text: str, spec: CipherSpec) -> None:
    """Refuse unknown ciphers and modes, and what does not go together."""
    name = spec.effective.cipher
    if name in ABSENT:
        raise UnsupportedError(f"cipher {text}: {name} is not supported: {ABSENT[name]}")
    if spec.mode not in MODES:
        raise UnsupportedError(
            f"cipher {text}: mode {spec.mode} is not supported, only {SUPPORTED}"
        )
    if spec.is_null:
        if spec.mode != "ecb":
            raise UnsupportedError(f"cipher {text}: {name} is not supported but as {_NULL}-ecb")
        return
    if name not in CIPHERS or CIPHERS[name].only_mode not in ("", spec.mode):
        raise UnsupportedError(f"cipher {text}: {name} is not supported, only {SUPPORTED}")
    if spec.mode == "adiantum" and CIPHERS[name].only_mode != "adiantum":
        raise UnsupportedError(
            f"cipher {text}: adiantum of {name} is not supported, only of xchacha20,aes"
        )
    if spec.mode in ("xts", "lrw") and CIPHERS[name].block != _BLOCK:
        raise UnsupportedError(
            f"cipher {text}: {spec.mode} is not supported with {name}, "
            f"whose block has {CIPHERS[name].block} bytes instead of {_BLOCK}"
        )
    if spec.takes_secure_keys and spec.mode not in SECURE_KEY_SIZES:
        raise UnsupportedError(f"cipher {text}: mode {spec.mode} is not supported with paes")
    if spec.takes_secure_keys and spec.keys > 1:
        raise UnsupportedError(f"cipher {text}: several keys are not supported with paes")


def _check_iv(text: str, spec: CipherSpec) -> None:
    if not spec.iv:
        if spec.mode not in NO_IV_MODES:
            raise ConfigError(f"cipher {text}: names no IV, wanted {SUPPORTED}")
        return
    if spec.iv == "random":
        raise UnsupportedError(
            f"cipher {text}: IV random is not supported: it needs a place beside each sector, "
            "which only integrity has"
        )
    if spec.iv not in IVS:
        raise UnsupportedError(f"cipher {text}: IV {spec.iv} is not supported, only {SUPPORTED}")
    if spec.mode in NO_IV_MODES and spec.iv not in DATA_IVS:
        return  # dm-crypt ignores it
    if spec.iv == "lmk" and spec.mode != "cbc":
        raise UnsupportedError(
            f"cipher {text}: IV lmk is not supported with {spec.mode}, only with cbc: "
            "in no other mode it can be undone"
        )
    if spec.iv in DATA_IVS and spec.mode in NO_IV_MODES:
        raise UnsupportedError(f"cipher {text}: IV {spec.iv} is not supported with {spec.mode}")
    if spec.iv in ("eboiv", "elephant") and spec.mode in ("ctr", "adiantum"):
        raise UnsupportedError(f"cipher {text}: IV {spec.iv} is not supported with {spec.mode}")
    if spec.takes_secure_keys and spec.iv not in SECURE_KEY_IVS:
        # Made of a part or a hash of the key, which nobody has.
        raise UnsupportedError(f"cipher {text}: {spec.iv} is not possible with a secure key")


def _check_essiv(text: str, spec: CipherSpec) -> None:
    if spec.iv == "essiv" and not spec.iv_hash:
        raise ConfigError(f"cipher {text}: essiv names no hash, wanted such as essiv:sha256")
    if not spec.iv_hash:
        return
    if spec.essiv_is_outside and (spec.iv in DATA_IVS or spec.iv in ("essiv", "eboiv")):
        raise UnsupportedError(f"cipher {text}: IV {spec.iv} is not supported inside essiv")
    if spec.takes_secure_keys:
        raise UnsupportedError(f"cipher {text}: essiv is not possible with a secure key")
    if spec.mode in ("ecb", "adiantum"):
        raise UnsupportedError(f"cipher {text}: essiv is not supported with {spec.mode}")
    sizes = CIPHERS[spec.cipher].key_sizes
    if DIGEST_SIZES.get(spec.iv_hash) not in sizes:
        fitting = ", ".join(name for name, size in DIGEST_SIZES.items() if size in sizes)
        raise UnsupportedError(
            f"cipher {text}: essiv with {spec.iv_hash} is not supported, only with {fitting}"
        )
