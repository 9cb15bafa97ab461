"""The key of a volume that is open already: a keyslot is opened again, in the header as it is now.

Blocks, and changes nothing on disk.
"""

from __future__ import annotations

from typing import Final

from ..keystore.errors import DigestMismatchError
from .effective_key import EffectiveKey, KeyService
from .engine.client import Engine, Secret
from .luks_header import LuksHeader
from .open_volume import open_luks

_OTHER: Final = "volume key does not match the volume: the header is another's"


def find_key_again(
    engine: Engine,
    header: LuksHeader,
    header_fd: int,
    secret: Secret,
    *,
    was: LuksHeader,
    pattern: str | None,
    key_slot: int | None,
    data_size: int,
    key_service: KeyService | None,
) -> EffectiveKey:
    """The key for the sectors of a volume that was opened with the header ``was``.

    ``pattern`` is the verification pattern that its effective key had, if that was a secure key's.

    Raises:
        DigestMismatchError: ``header`` vouches for the key of another volume.
        MapperError: as `open_luks`.
    """
    # A secure key is another one after a change of the master key, and so is its digest.
    if pattern is None and header.make_digest_spec() != was.make_digest_spec():
        raise DigestMismatchError(_OTHER)
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
    effective = opened.effective
    assert effective is not None
    if pattern is not None and (
        effective.derivation is None or effective.derivation.pattern != pattern
    ):
        raise DigestMismatchError(_OTHER)
    return effective
