"""The host key, itself sealed: by a passphrase, a credential of systemd, or a TPM 2.0.

A file of canonical JSON: how it is sealed, all that is needed for that but the secret, and one or
more host keys of 32 bytes under AES-256-GCM, the newest first: while adapters are moved from one
host key to the next, both are there.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import gcm, tpm
from .clear_bytes import make_random, wiped
from .errors import ConfigError, CoprocessorError, FormatError, NoKeyError
from .json_object import JsonObject, pack_canonical
from .passphrase_kdf import PassphraseKdf
from .seal_state import SealMethod

HOST_KEY_SIZE: Final = 32
SIZE_MAX: Final = 64 << 10
_FORMAT: Final = "fusecrypt sealed host key"
_VERSION: Final = 1
_SALT_SIZE: Final = 32
_INFO: Final = b"fusecrypt sealed host key 1"
#: A credential with less is no key, but something that was typed.
_CREDENTIAL_MIN: Final = 32
_KEYS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Envelope:
    """One such file."""

    method: SealMethod
    salt: bytes  # of the key that a credential or a TPM's secret stands for
    nonce: bytes
    sealed: bytes = field(repr=False)
    kdf: PassphraseKdf | None = None
    tpm_object: tpm.TpmObject | None = None

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """The envelope that a file holds.

        Raises:
            FormatError: it holds none.
        """
        json = JsonObject.parse(data, where)
        json.take_constant("format", _FORMAT)
        json.take_constant("version", _VERSION)
        text = json.take_str("with")
        if text not in tuple(SealMethod)[1:]:
            raise FormatError(f"{where}: sealed with {text!r}, which is not known here")
        method = SealMethod(text)
        kdf, sealed_object = None, None
        if method is SealMethod.PASSPHRASE:
            kdf = PassphraseKdf.take(json.take_object("kdf"), where)
        if method is SealMethod.TPM2:
            part = json.take_object("tpm2")
            sealed_object = tpm.TpmObject(
                part.take_hex("public"), part.take_hex("private"), part.take_str("pcrs")
            )
            part.finish()
            try:
                is_known = tpm.check_pcrs(sealed_object.pcrs) == sealed_object.pcrs
            except ConfigError:
                is_known = False
            if not is_known:
                raise FormatError(f"{where}: PCRs {sealed_object.pcrs!r}")
        sealed = json.take_hex("keys")
        size = len(sealed) - gcm.TAG_SIZE
        if size <= 0 or size % HOST_KEY_SIZE or size > _KEYS_MAX * HOST_KEY_SIZE:
            raise FormatError(f"{where}: {len(sealed)} bytes of sealed keys")
        salt = json.take_hex("salt", _SALT_SIZE)
        nonce = json.take_hex("nonce", gcm.NONCE_SIZE)
        json.finish()
        return cls(method, salt, nonce, sealed, kdf, sealed_object)

    def pack(self) -> bytes:
        """The file."""
        return pack_canonical({**self._pack_public(), "keys": self.sealed.hex()}) + b"\n"

    def _pack_public(self) -> dict[str, Any]:
        members: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "with": str(self.method),
            "salt": self.salt.hex(),
            "nonce": self.nonce.hex(),
        }
        if self.kdf is not None:
            members["kdf"] = self.kdf.pack()
        if self.tpm_object is not None:
            members["tpm2"] = {
                "public": self.tpm_object.public.hex(),
                "private": self.tpm_object.private.hex(),
                "pcrs": self.tpm_object.pcrs,
            }
        return members

    def open(self, key: bytearray, where: str) -> bytearray:
        """The host keys, the newest first; the caller wipes them.

        Raises:
            NoKeyError: ``key`` is another one, or the file was altered.
        """
        try:
            return gcm.decrypt(self.sealed, key, self.nonce, pack_canonical(self._pack_public()))
        except gcm.NotAuthenticError as error:
            raise NoKeyError(
                f"{where}: does not open with this {self.method}, or was altered"
            ) from error

    def with_keys(self, host_keys: bytearray, key: bytearray) -> Self:
        """The same for other host keys; the caller wipes them."""
        fresh = replace(self, nonce=os.urandom(gcm.NONCE_SIZE))
        public = pack_canonical(fresh._pack_public())  # noqa: SLF001 (of the same class)
        return replace(fresh, sealed=gcm.encrypt(host_keys, key, fresh.nonce, public))


@contextmanager
def new_envelope(
    method: SealMethod, secret: bytearray, pcrs: str = ""
) -> Generator[tuple[Envelope, bytearray], None, None]:
    """An envelope without keys yet, and the key to fill it, for the length of a block.

    ``secret`` is a passphrase or a credential, which the caller wipes; a TPM makes its own.

    Raises:
        ConfigError: no passphrase, or a credential that is too short.
        CoprocessorError: no memory for the KDF; the TPM is missing or refuses.
    """
    empty = Envelope(method, os.urandom(_SALT_SIZE), bytes(gcm.NONCE_SIZE), b"")
    if method is SealMethod.PASSPHRASE:
        if not secret:
            raise ConfigError("sealing: the passphrase is empty")
        empty = replace(empty, kdf=PassphraseKdf.make())
    elif method is SealMethod.TPM2:
        with wiped(make_random(tpm.SECRET_SIZE)) as inner:
            empty = replace(empty, tpm_object=tpm.seal(inner, tpm.check_pcrs(pcrs)))
            with wiped(_expand(empty, inner)) as key:
                yield empty, key
        return
    with wiped(derive_key(empty, secret, "sealing")) as key:
        yield empty, key


def derive_key(envelope: Envelope, secret: bytearray, where: str) -> bytearray:
    """The key to an envelope, of a passphrase or a credential; the caller wipes both.

    Raises:
        ConfigError: a credential that is too short.
        CoprocessorError: no memory for the KDF.
    """
    if envelope.kdf is not None:
        return envelope.kdf.derive(secret, where)
    if len(secret) < _CREDENTIAL_MIN:
        raise ConfigError(
            f"{where}: the credential has {len(secret)} bytes, wanted {_CREDENTIAL_MIN} or more,"
            " random ones"
        )
    return _expand(envelope, secret)


def unseal_key(envelope: Envelope) -> bytearray:
    """The key to an envelope, of the TPM; the caller wipes it.

    Raises:
        CoprocessorError: the TPM is missing, another one, or refuses.
    """
    if envelope.tpm_object is None:
        raise CoprocessorError(f"sealed with {envelope.method}, not with a TPM")
    with wiped(tpm.unseal(envelope.tpm_object)) as secret:
        return _expand(envelope, secret)


def _expand(envelope: Envelope, secret: bytearray) -> bytearray:
    key = bytearray(gcm.KEY_SIZE)
    HKDF(hashes.SHA256(), gcm.KEY_SIZE, envelope.salt, _INFO).derive_into(secret, key)
    return key
