"""What a LUKS header of either version tells about opening its volume, and reading one.

LUKS1 and LUKS2 differ in how they write this down; how a volume is opened does not depend on it.
"""

from __future__ import annotations

from typing import Protocol

from ..keystore.errors import ConfigError
from .backing import Pread
from .engine.messages import DigestSpec, KeyslotSpec
from .luks1 import Luks1Header
from .luks1 import read_header as read_luks1
from .luks2 import Luks2Header
from .luks2 import read_header as read_luks2
from .probe import probe
from .segment import DataSegment


class LuksHeader(Protocol):
    """A header that was read and is consistent in itself; nothing that is secret is in it."""

    @property
    def type(self) -> str:
        """``luks1`` or ``luks2``."""
        ...

    @property
    def uuid(self) -> str:
        """As it stands in the header, maybe empty."""
        ...

    @property
    def label(self) -> str:
        """Empty where there is none."""
        ...

    @property
    def subsystem(self) -> str:
        """Empty where there is none."""
        ...

    def get_segment(self, *, read_only: bool) -> DataSegment:
        """Where the data lie and under which cipher.

        Raises:
            UnsupportedError: names what of the header we do not do.
        """
        ...

    def list_notes(self) -> tuple[str, ...]:
        """What somebody who opens the volume should know of the header."""
        ...

    def list_keyslots(self) -> tuple[int, ...]:
        """The keyslots in use."""
        ...

    def list_candidates(self, number: int | None = None) -> tuple[int, ...]:
        """The keyslots that may hold the volume key, in the order to try them.

        Raises:
            NotFoundError: no keyslot ``number``.
            UnlockError: none, or not ``number``, holds the volume key.
            UnsupportedError: ``number`` is of a type that we do not know.
        """
        ...

    def make_keyslot_spec(self, number: int) -> KeyslotSpec:
        """A keyslot in use, as the engine takes it.

        Raises:
            FormatError: a salt, size or cost that cannot be.
            UnsupportedError: a KDF that the engine does not have.
        """
        ...

    def make_digest_spec(self) -> DigestSpec:
        """What tells the volume key, as the engine takes it.

        Raises:
            FormatError: a salt, digest or cost that cannot be.
            UnsupportedError: another kind of digest.
        """
        ...

    def find_key_size(self) -> int | None:
        """Bytes of the volume key; None where the header does not say."""
        ...

    def find_verification_pattern(self) -> str | None:
        """What tells the effective key of a paes volume; None where nothing does.

        Raises:
            FormatError: it is not 64 hexadecimal digits.
        """
        ...


def read_luks_header(pread: Pread, size: int, kind: str = "luks") -> Luks1Header | Luks2Header:
    """The header of a LUKS volume, or of a detached header file, of ``size`` bytes.

    ``kind`` is ``luks1``, ``luks2`` or, for either of the two, ``luks``.

    Raises:
        NotLuksError: there is no LUKS header.
        ConfigError: there is one of another kind.
        UnsupportedError: LUKS of another version, or with what we do not know.
        FormatError: a damaged header, or a file that ends before its header does.
    """
    found = probe(pread, size)
    if found is not None and kind not in ("luks", found):
        raise ConfigError(f"not a valid {kind.upper()} device: it is {found.upper()}")
    if found == "luks1":
        return read_luks1(pread, size)
    return read_luks2(pread, size)
