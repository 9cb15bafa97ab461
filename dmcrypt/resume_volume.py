"""The key of a volume that is open already: a keyslot is opened again, in the header as it is now.

Blocks, and changes nothing on disk.
"""

from __future__ import annotations

from ..keystore.errors import DigestMismatchError
from .effective_key import EffectiveKey, KeyService
from .engine.client import Engine, Secret
from .luks_header import LuksHeader
from .open_volume import open_luks


def find_key_again(
    engine: Engine,
    header: LuksHeader,
    header_fd: int,
    secret: Secret,
    *,
    was: LuksHeader,
    key_slot: int | None,
    data_size: int,
    key_service: KeyService | None,
) -> EffectiveKey:
    """The key for the sectors of a volume that was opened with the header ``was``.

    Raises:
        DigestMismatchError: ``header`` vouches for the key of another volume.
        MapperError: as `open_luks`.
    """
    if not _is_same_key(header, was):
        raise DigestMismatchError("volume key does not match the volume: the header is another's")
    opened = open_luks(
        engine,
        header,
        header_fd,
        secret,
        key_slot=key_slot,
        data_size=data_size,
        read_only=True,
        key_service=key_service,
    )
    assert opened.effective is not None
    return opened.effective


def _is_same_key(header: LuksHeader, was: LuksHeader) -> bool:
    """Whether both headers let the same key pass.

    A secure key is another one after a change of the master key, and so is its digest; the
    verification pattern is the effective key's.
    """
    pattern = was.find_verification_pattern()
    if pattern is not None and pattern == header.find_verification_pattern():
        return True
    return header.make_digest_spec() == was.make_digest_spec()
