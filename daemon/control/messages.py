"""What opens a volume over ``io.fusecrypt``: files, keys, and what is asked for, as values.

Each ``parse`` checks everything and raises `ParameterError`; each ``pack`` makes what it reads. The
interface, method by method, is described in docs/manual/fusecryptd.8.md. What is asked of volumes
that are open is in volume_requests.py, what comes back in answers.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from ..live_key import LEASE_MAX
from ..volume_name import check_volume_name
from .fields import Fields, ParameterError, PassedFds, pack_value

VolumeType = Literal["luks", "luks1", "luks2", "plain", "loopaes"]
SecretInput = Literal["line", "all"]


@dataclass(frozen=True, slots=True)
class PassedFile:
    """A file that the caller opened with its own rights."""

    fd: int
    path: str  # as the user named it, made absolute; for messages and `status` only

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {"fd": fds.add(self.fd), "path": self.path}

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(fields.fd("fd"), fields.text("path"))


@dataclass(frozen=True, slots=True)
class KeyInput:
    """Where a passphrase or key file is read from."""

    fd: int
    mode: SecretInput  # "line": up to the first newline; "all": to the end
    keyfile: bool  # plain mode: the bytes are the key itself, not a passphrase to be hashed
    offset: int = 0  # bytes to skip
    size: int = 0  # bytes to take at most; 0: all

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {
            "fd": fds.add(self.fd),
            "mode": self.mode,
            "keyfile": self.keyfile,
            "offset": self.offset,
            "size": self.size,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            fields.fd("fd"),
            cast("SecretInput", fields.choice("mode", get_args(SecretInput))),
            fields.flag("keyfile"),
            fields.integer("offset", default=0),
            fields.integer("size", default=0),
        )


@dataclass(frozen=True, slots=True)
class VolumeKeyInput:
    """A file with the volume key itself (``--volume-key-file``)."""

    fd: int
    size: int  # bytes; 0: what the header says

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {"fd": fds.add(self.fd), "size": self.size}

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(fields.fd("fd"), fields.integer("size", default=0))


@dataclass(frozen=True, slots=True)
class PlainOptions:
    """The parameters of plain mode, or some for loop-AES.

    All of ``offset``, ``skip``, ``size`` are in 512-byte sectors.
    """

    cipher: str
    key_bits: int
    hash: str | None  # None: key file; "plain": no hash
    offset: int = 0
    skip: int = 0
    size: int | None = None
    sector_size: int = 512
    iv_large_sectors: bool = False
    hash_length: int = 0  # bytes of the digest to take (NAME:N); 0: all that the key needs

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            cipher=fields.text("cipher"),
            key_bits=fields.integer("key_bits"),
            hash=fields.optional_text("hash"),
            offset=fields.integer("offset", default=0),
            skip=fields.integer("skip", default=0),
            size=fields.optional_integer("size"),
            sector_size=fields.integer("sector_size", default=512),
            iv_large_sectors=fields.flag("iv_large_sectors"),
            hash_length=fields.integer("hash_length", default=0),
        )


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """``Open``: a volume from descriptors."""

    name: str
    type: VolumeType
    source: PassedFile
    header: PassedFile | None = None
    key: KeyInput | None = None
    volume_key: VolumeKeyInput | None = None
    key_slot: int | None = None
    read_only: bool = False
    plain: PlainOptions | None = None
    allow_discards: bool = False
    lease: int | None = None  # seconds, 0: none; None: as the settings say
    idle: int | None = None  # likewise
    no_locks: bool = False  # the header is read without cryptsetup's lock

    def pack(self, fds: PassedFds) -> dict[str, object]:
        """The parameters; the descriptors are added to ``fds``."""
        content: dict[str, object] = {
            "name": self.name,
            "type": self.type,
            "source": self.source.pack(fds),
            "read_only": self.read_only,
            "allow_discards": self.allow_discards,
            "no_locks": self.no_locks,
        }
        if self.header is not None:
            content["header"] = self.header.pack(fds)
        if self.key is not None:
            content["key"] = self.key.pack(fds)
        if self.volume_key is not None:
            content["volume_key"] = self.volume_key.pack(fds)
        if self.key_slot is not None:
            content["key_slot"] = self.key_slot
        if self.plain is not None:
            content["plain"] = pack_value(self.plain)
        if self.lease is not None:
            content["lease"] = self.lease
        if self.idle is not None:
            content["idle"] = self.idle
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        request = cls(
            name=parse_name(fields),
            type=cast("VolumeType", fields.choice("type", get_args(VolumeType))),
            source=PassedFile.parse(fields.object("source")),
            header=fields.optional("header", PassedFile.parse),
            key=fields.optional("key", KeyInput.parse),
            volume_key=fields.optional("volume_key", VolumeKeyInput.parse),
            key_slot=fields.optional_integer("key_slot"),
            read_only=fields.flag("read_only"),
            no_locks=fields.flag("no_locks"),
            plain=fields.optional("plain", PlainOptions.parse),
            allow_discards=fields.flag("allow_discards"),
            lease=_parse_lease(fields, "lease"),
            idle=_parse_lease(fields, "idle"),
        )
        if (request.type in ("plain", "loopaes")) != (request.plain is not None):
            raise ParameterError("plain", "given exactly when type is plain or loopaes")
        if (request.key is None) == (request.volume_key is None):
            raise ParameterError("key", "either key or volume_key")
        return request


@dataclass(frozen=True, slots=True)
class OpenEntryRequest:
    """``OpenEntry``: a volume by its crypttab line."""

    name: str
    key: KeyInput | None = None

    def pack(self, fds: PassedFds) -> dict[str, object]:
        content: dict[str, object] = {"name": self.name}
        if self.key is not None:
            content["key"] = self.key.pack(fds)
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        return cls(parse_name(fields), fields.optional("key", KeyInput.parse))


def parse_name(fields: Fields) -> str:
    """The name of a volume, which stands in every request.

    Raises:
        ParameterError: it is no text.
        ConfigError: it cannot be a name.
    """
    name = fields.text("name")
    check_volume_name(name)
    return name


def _parse_lease(fields: Fields, name: str) -> int | None:
    seconds = fields.optional_integer(name)
    if seconds is not None and seconds > LEASE_MAX:
        raise ParameterError(name, f"at most {LEASE_MAX} seconds")
    return seconds
