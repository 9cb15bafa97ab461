"""The size of a new volume's key."""

from __future__ import annotations

from ..keystore.errors import ConfigError, UnsupportedError
from .cipher_spec import CipherSpec


def choose_key_size(spec: CipherSpec, key_bits: int | None) -> int:
    """Bytes: 256 bits unless told otherwise, twice that for XTS, or the most that it takes.

    Raises:
        ConfigError: no whole bytes, or a size that the cipher does not take.
        UnsupportedError: a cipher that cryptsetup formats no LUKS volume with.
    """
    if spec.is_luks_alien:
        raise UnsupportedError(
            f"cipher {spec.dm_name}: not supported for a new LUKS volume, only in tables: its IV "
            "or each sector takes a part of the key"
        )
    if key_bits is None:
        if spec.takes_secure_keys:
            raise ConfigError(f"cipher {spec.dm_name}: the key size must be given: the token's")
        size = spec.default_key_size
    elif key_bits % 8:
        raise ConfigError(f"key size {key_bits}: not a multiple of 8 bits")
    else:
        size = key_bits // 8
    spec.check_key_size(size)
    return size
