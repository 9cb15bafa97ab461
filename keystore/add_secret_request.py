"""A request to add an association secret: a file that only the guest it was made for can read.

On IBM Z it is sealed for the ultravisor; here by the host key of a state directory, in JSON, the id
in the clear and authenticated. The id is the SHA-256 of the name that was given to the secret, as
pvsecret of s390-tools makes it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from .ep11_session import SECRET_SIZE
from .errors import FormatError
from .json_object import JsonObject, pack_canonical
from .sealing import HostKey, Sealed

ID_SIZE: Final = 32
SIZE_MAX: Final = 4096  # bytes
NAME_MAX: Final = 255  # bytes
_FORMAT: Final = "fusecrypt add-secret request"
_VERSION: Final = 1
_WHERE: Final = "add-secret request"


def make_secret_id(name: str) -> bytes:
    """The 32 bytes by which the secret of this name is known."""
    return hashlib.sha256(name.encode()).digest()


def make_request(host_key: HostKey, name: str, secret: bytearray) -> bytes:
    """The request for a secret of 32 bytes, which the caller wipes.

    Raises:
        CoprocessorError, AccessError, FormatError: the host key cannot be had.
    """
    members = _pack_public(make_secret_id(name))
    sealed = host_key.seal(secret, pack_canonical(members))
    return pack_canonical({**members, "sealed": sealed.pack("secret")}) + b"\n"


def open_request(host_key: HostKey, data: bytes) -> tuple[bytes, bytearray]:
    """Id and secret of a request; the caller wipes the secret.

    Raises:
        FormatError: no request, altered, or sealed by another host key.
        CoprocessorError, AccessError: the host key cannot be had.
    """
    if len(data) > SIZE_MAX:
        raise FormatError(f"{_WHERE}: over {SIZE_MAX} bytes")
    json = JsonObject.parse(data, _WHERE)
    json.take_constant("format", _FORMAT)
    json.take_constant("version", _VERSION)
    secret_id = json.take_hex("id", ID_SIZE)
    sealed = Sealed.take(json, "secret", SECRET_SIZE)
    json.finish()
    return secret_id, host_key.unseal(sealed, pack_canonical(_pack_public(secret_id)), _WHERE)


def _pack_public(secret_id: bytes) -> dict[str, Any]:
    return {"format": _FORMAT, "version": _VERSION, "id": secret_id.hex()}
