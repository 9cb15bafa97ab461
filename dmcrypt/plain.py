"""Plain dm-crypt volumes: their parameters, with cryptsetup's checks, and their table.

Source: cryptsetup(8) of 2.6, lib/setup.c (_crypt_format_plain), src/cryptsetup.c
(action_open_plain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ..keystore.errors import AccessError, ConfigError
from ..keystore.keys import ProtectedKey
from .cipher_spec import CipherSpec
from .engine.messages import TargetKind
from .table import Segment, Table
from .units import ENCRYPTION_SECTOR_SIZES, SECTOR_SIZE, UINT64_MAX, Sector

#: What nobody should have to guess: the tools disagree.
DEFAULTS_DIFFER: Final = (
    "the defaults differ: systemd's are aes-cbc-essiv:sha256, 256 bit, ripemd160, "
    "those of cryptsetup are aes-xts-plain64, 256 bit, sha256"
)
KEYFILE_SIZE_IGNORED: Final = (
    "the key file size is ignored in plain mode: as many bytes are read as the key has"
)
HASH_IGNORED: Final = "the hash is ignored in plain mode with a key file"


@dataclass(frozen=True, slots=True)
class PlainParams:
    """What a plain volume's header would say, had it one."""

    cipher: str  # as "aes-xts-plain64"
    key_bits: int
    hash_name: str | None = None  # of the passphrase, NAME or NAME:N; not looked at with a key file
    hash_length: int = 0  # the N of NAME:N; 0: as many bytes as the key has
    offset: int = 0  # 512-byte sectors before the data
    skip: int = 0  # IV of the first sector, in 512-byte sectors
    size: int | None = None  # 512-byte sectors; None: to the end of the device
    sector_size: int = SECTOR_SIZE
    iv_large_sectors: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError: what cryptsetup or dm-crypt refuses whatever the device is."""
        if self.key_bits % 8:
            raise ConfigError(f"key size {self.key_bits}: not a multiple of 8 bits")
        self.spec.check_key_size(self.key_size)
        if self.sector_size not in ENCRYPTION_SECTOR_SIZES:
            raise ConfigError(f"sector size {self.sector_size}: wanted 512, 1024, 2048 or 4096")
        self.spec.check_sector_size(self.sector_size)
        if self.iv_large_sectors and self.sector_size == SECTOR_SIZE:
            raise ConfigError("large IV sectors: make sense only with a sector size above 512")
        for what, value in (("offset", self.offset), ("skip", self.skip), ("size", self.size or 0)):
            if not 0 <= value <= UINT64_MAX // (1 if what == "skip" else SECTOR_SIZE):
                raise ConfigError(
                    f"{what} {value} [512-byte sectors]: does not fit 64 bits of bytes"
                )
        if self.size == 0:
            raise ConfigError("size 0: wanted at least one sector")
        for what, value in (("skip", self.skip), ("size", self.size or 0)):
            if value * SECTOR_SIZE % self.sector_size:
                raise ConfigError(
                    f"{what} {value} [512-byte sectors]: not a multiple of "
                    f"{self.sector_size // SECTOR_SIZE}, as the sector size "
                    f"{self.sector_size} demands"
                )
        length = parse_hash(self.hash)[1] if self.hash else None
        if length is not None and length > self.key_size:
            raise ConfigError(
                f"hash {self.hash}: {length} bytes of it, the key has only {self.key_size}"
            )

    @property
    def spec(self) -> CipherSpec:
        """The cipher. Raises UnsupportedError, ConfigError: as `CipherSpec.parse`."""
        return CipherSpec.parse(self.cipher)

    @property
    def hash(self) -> str:
        """The hash of the passphrase as NAME or NAME:N; empty without one."""
        if self.hash_name is None:
            return ""
        return f"{self.hash_name}:{self.hash_length}" if self.hash_length else self.hash_name

    @property
    def key_size(self) -> int:
        """Bytes of the volume key."""
        return self.key_bits // 8


def parse_hash(text: str) -> tuple[str, int | None]:
    """Name and length of ``NAME`` or ``NAME:N``, N being the bytes of the digest that count.

    The rest of the key is zeros; of NAME:0, which cryptsetup takes, all of it.

    Raises:
        ConfigError: no name, or N is not a number.
    """
    name, colon, length = text.partition(":")
    if not name:
        raise ConfigError(f"hash {text!r}: names no hash")
    if not colon:
        return name, None
    if not (length.isascii() and length.isdigit()) or len(length) > 4:
        raise ConfigError(
            f"hash {text}: wanted NAME or NAME:N, N being how many bytes of the digest count"
        )
    return name, int(length)


def make_params(
    *,
    cipher: str | None,
    key_bits: int | None,
    hash_spec: str | None,
    has_keyfile: bool,
    offset: int = 0,
    skip: int = 0,
    size: int | None = None,
    sector_size: int = SECTOR_SIZE,
    iv_large_sectors: bool = False,
) -> PlainParams:
    """Parameters as a user gave them; what the tools' defaults disagree on must have been given.

    ``hash_spec`` may be left out with a key file, which is taken as the key itself; one that is
    there is ignored, see `HASH_IGNORED`. Offset, skip and size are in 512-byte sectors.

    Raises:
        ConfigError: something is missing, or cannot be.
        UnsupportedError: a cipher that we do not serve.
    """
    if cipher is None or key_bits is None or (hash_spec is None and not has_keyfile):
        missing = [
            name
            for name, given in (
                ("cipher", cipher),
                ("key size", key_bits),
                ("hash", hash_spec or has_keyfile),
            )
            if not given
        ]
        raise ConfigError(f"plain mode: {' and '.join(missing)} must be given; {DEFAULTS_DIFFER}")
    return PlainParams(
        cipher=cipher,
        key_bits=key_bits,
        hash_name=None if has_keyfile else hash_spec,
        offset=offset,
        skip=skip,
        size=size,
        sector_size=sector_size,
        iv_large_sectors=iv_large_sectors,
    )


class Placement(Protocol):
    """Where the data of a volume without a header lie."""

    @property
    def offset(self) -> int:
        """512-byte sectors before them."""
        ...

    @property
    def size(self) -> int | None:
        """512-byte sectors; None: to the end of the device."""
        ...

    @property
    def sector_size(self) -> int:
        """Bytes."""
        ...


def get_length(params: Placement, device_size: int) -> int:
    """Bytes of the volume on a device of ``device_size`` bytes.

    Raises:
        AccessError: the device is too small.
        ConfigError: what is left of it is not whole sectors.
    """
    sectors = device_size // SECTOR_SIZE
    if params.offset >= sectors:
        raise AccessError(
            f"offset {params.offset} [512-byte sectors]: beyond the device, which has {sectors}"
        )
    rest = sectors - params.offset
    # cryptsetup looks at the whole rest of the device, even where a size is given.
    if rest * SECTOR_SIZE % params.sector_size:
        raise ConfigError(
            f"device size: {rest * SECTOR_SIZE} bytes behind the offset are not a multiple of "
            f"the sector size {params.sector_size}"
        )
    if params.size is not None and params.size > rest:
        raise AccessError(
            f"size {params.size} [512-byte sectors]: the device has only {rest} behind the offset"
        )
    return (rest if params.size is None else params.size) * SECTOR_SIZE


def plain_table(
    params: PlainParams, key: ProtectedKey, device_size: int, *, read_only: bool
) -> Table:
    """The table of a plain volume.

    Raises:
        AccessError: the device is too small.
        ConfigError: sizes that do not fit the sector size.
    """
    length = get_length(params, device_size)
    segment = Segment(
        start=0,
        length=length,
        target=TargetKind.CRYPT,
        backing_offset=params.offset * SECTOR_SIZE,
        cipher=params.spec.effective,
        iv_offset=Sector(params.skip),
        iv_large_sectors=params.iv_large_sectors,
        key=key,
    )
    return Table((segment,), params.sector_size, length, read_only)
