"""The key that sectors are enciphered with: what a volume key stands for.

The volume key of an ``aes`` volume is that key itself. That of a ``paes`` volume is a token: a
secure key, which a coprocessor turns into a key for this one session of the engine, or a protected
key of this session. arch/s390/crypto/paes_s390.c takes clear keys as well, and so do we, with a
note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ..keystore.coprocessor import KIND_X25519, Apqn, Transport
from ..keystore.errors import ConfigError, PolicyError, UnlockError
from ..keystore.key_type import KeyType
from ..keystore.keys import ProtectedKey, SecureKey
from .cipher_spec import CipherSpec
from .engine.client import Engine
from .engine.messages import KeyKind

_TRAP: Final = (
    "the volume was made with only the beginning of a secure key, as if that were a clear key; "
    "this happens without --key-size (XTS: 1024 for CCA-AESDATA, 2176 for CCA-AESCIPHER, 5376 or "
    "5120 for EP11-AES, 1536 for PKCS11-AES), and whoever has the secure key's file reads the "
    "volume. Wanted: a volume made with the whole key"
)


class KeyService(Protocol):
    """Where secure keys are turned into keys for an engine."""

    def make_transport(self, key: SecureKey, public_key: bytes) -> Transport:
        """The effective key, wrapped for the engine with this public key.

        Raises:
            CoprocessorError: nobody can, or will, do it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Derivation:
    """A secure key, which is no secret, and who turned it into a key for an engine."""

    secure: SecureKey
    pattern: str  # of the effective key
    apqn: Apqn


@dataclass(frozen=True, slots=True)
class EffectiveKey:
    """A key for the engine, and where it came from."""

    key: ProtectedKey
    origin: str = "engine"  # for people: what guards it at rest
    notes: tuple[str, ...] = ()
    derivation: Derivation | None = None  # None: nobody but its user can bring it again
    is_random: bool = False  # a protected key of this session of the engine, and of no other


def get_public_key(engine: Engine, secure: SecureKey) -> bytes:
    """What a coprocessor needs to wrap this key for the engine (keystore/transport.py).

    The RSA half, which takes the engine a second to make, is only for keys of PKCS#11 tokens.
    """
    public_key = engine.hello.public_key
    if secure.key_type is KeyType.PKCS11_AES:
        public_key += engine.get_rsa_modulus()
    return public_key


def get_effective_key(
    engine: Engine,
    volume_key: ProtectedKey,
    spec: CipherSpec,
    service: KeyService | None,
    *,
    pattern: str | None = None,
) -> EffectiveKey:
    """What ``volume_key`` stands for in a volume with this cipher.

    ``pattern`` is the verification pattern that the effective key must have, where it is known.

    Raises:
        PolicyError: a fragment of a secure key is used as a clear key.
        UnlockError: the key is no token that paes takes, or has another verification pattern.
        CoprocessorError: no coprocessor turns the secure key into a protected one.
        ProtectedKeyExpiredError: a protected key of another session.
    """
    if not spec.takes_secure_keys:
        return EffectiveKey(volume_key)
    exported = engine.export_key(volume_key)
    if exported.kind is KeyKind.PROTECTED and exported.protected is not None:
        return EffectiveKey(exported.protected, "protected key of this session", is_random=True)
    if exported.kind is KeyKind.CLEAR:
        note = "paes with a clear key: no coprocessor guards this volume"
        return EffectiveKey(volume_key, "engine", (note,))
    if exported.kind is KeyKind.FRAGMENT:
        raise PolicyError(_TRAP)
    secure = SecureKey.parse(exported.secure)
    if spec.is_xts and not secure.is_xts:
        raise PolicyError(_TRAP)
    if secure.is_xts and not spec.is_xts:
        raise ConfigError(f"cipher {spec.dm_name}: takes one secure key, not a pair for XTS")
    if service is None:
        raise UnlockError("a secure key, and no keystored to turn it into a protected one")
    return derive_key(engine, secure, service, pattern=pattern)


def derive_key(
    engine: Engine, secure: SecureKey, service: KeyService, *, pattern: str | None
) -> EffectiveKey:
    """The effective key of a secure key, for the engine's session as it is now.

    ``pattern`` is the verification pattern that it must have, where it is known.

    Raises:
        UnlockError: it has another verification pattern, or sessions begin too fast.
        PolicyError: keystored serves engines of the service only, and this is none.
        CoprocessorError: no coprocessor turns the secure key into a protected one.
    """
    public_key = get_public_key(engine, secure)
    try:
        return _derive_for(engine, public_key, secure, service, pattern)
    except (UnlockError, PolicyError):
        # The engine's keys may be others by now, of another session, or used up; of those before
        # the engine knows nothing, and keystored no engine.
        engine.hello = engine.status()
        if get_public_key(engine, secure) == public_key:
            raise
    return _derive_for(engine, get_public_key(engine, secure), secure, service, pattern)


def _derive_for(
    engine: Engine,
    public_key: bytes,
    secure: SecureKey,
    service: KeyService,
    pattern: str | None,
) -> EffectiveKey:
    transport = service.make_transport(secure, public_key)
    if pattern is not None and pattern != transport.pattern:
        raise UnlockError(
            f"secure key: its verification pattern {transport.pattern} is not the one in the "
            f"header, {pattern}; it is the key of another volume"
        )
    return EffectiveKey(
        engine.import_key(transport.blob, key_size=transport.key_size),
        _say_origin(secure, transport),
        derivation=Derivation(secure, transport.pattern, transport.apqn),
    )


def _say_origin(secure: SecureKey, transport: Transport) -> str:
    """What guards the key at rest; and whether its token could not bring it here unseen."""
    origin = f"{secure.key_type} by adapter {transport.apqn}"
    if secure.key_type is KeyType.PKCS11_AES and transport.blob[:1] == KIND_X25519:
        return f"{origin}, clear in fusecrypt-keystored"
    return origin
