"""The size of a new volume's key."""

from __future__ import annotations

from ..keystore.errors import ConfigError
from .cipher_spec import CipherSpec


def choose_key_size(spec: CipherSpec, key_bits: int | None) -> int:
    """Bytes: 256 bits unless told otherwise, twice that for XTS, as cryptsetup does.

    Raises:
        ConfigError: no whole bytes, or a size that the cipher does not take.
        UnsupportedError: the size of an EP11 secure key.
    """
    if key_bits is None:
        if spec.takes_secure_keys:
            raise ConfigError(f"cipher {spec.dm_name}: the key size must be given: the token's")
        size = 64 if spec.is_xts else 32
    elif key_bits % 8:
        raise ConfigError(f"key size {key_bits}: not a multiple of 8 bits")
    else:
        size = key_bits // 8
    spec.check_key_size(size)
    return size
