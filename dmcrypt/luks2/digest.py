"""Digests of LUKS2: how a volume key is told to be the right one.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.4.
"""

from __future__ import annotations

from ...keystore.errors import FormatError, UnsupportedError
from ..engine.messages import DIGEST_MAX, SALT_MAX, DigestSpec
from ..kdf_policy import check_pbkdf2
from ..units import UINT32_MAX
from .keyslot import decode_base64
from .model import Digest, Metadata


def get_digest(metadata: Metadata, segment: int) -> Digest:
    """The digest of a segment's key; validated metadata has one for each crypt segment.

    Raises:
        FormatError: there is none.
    """
    digest = metadata.find_digest_of_segment(segment)
    if digest is None:
        raise FormatError(f"segments.{segment}: no digest refers to it")
    return digest


def make_spec(digest: Digest) -> DigestSpec:
    """The digest as the engine takes it.

    Raises:
        FormatError: a salt, digest or cost that cannot be.
        UnsupportedError: another type of digest.
        PolicyError: one that takes too long.
    """
    path = f"digests.{digest.id}"
    if digest.type != "pbkdf2":
        raise UnsupportedError(f"{path}.type: {digest.type} is not supported, wanted pbkdf2")
    if digest.hash is None:
        raise FormatError(f"{path}.hash: missing")
    if digest.iterations is None or not 0 < digest.iterations <= UINT32_MAX:
        raise FormatError(f"{path}.iterations: got {digest.iterations}, wanted 1 to {UINT32_MAX}")
    check_pbkdf2(path, digest.iterations)
    salt = decode_base64(f"{path}.salt", digest.salt, SALT_MAX)
    value = decode_base64(f"{path}.digest", digest.digest, DIGEST_MAX)
    return DigestSpec(digest.hash, digest.iterations, salt, value, len(value))
