"""The errors of fusecrypt. Each class exists because some caller acts differently on it."""

from __future__ import annotations


class MapperError(Exception):
    """Anything that fusecrypt refuses or fails at; the message says what, where, got, wanted."""


class FormatError(MapperError):
    """Bytes on disk that are not what their format demands."""


class UnsupportedError(MapperError):
    """A well-formed request for something that fusecrypt does not do; names it."""


class UnlockError(MapperError):
    """A volume whose key could not be had."""


class NoKeyError(UnlockError):
    """No keyslot opens with this passphrase or key file."""


class DigestMismatchError(UnlockError):
    """A key was found, but it is not the key that the header vouches for."""


class BusyError(MapperError):
    """The name, the backing file or the device is in use."""


class NotFoundError(MapperError):
    """The named volume, entry, file or device does not exist."""


class AccessError(MapperError):
    """The operating system denied access to a file or device."""


class ConfigError(MapperError):
    """A setting, option or crypttab line that cannot be taken as it stands."""


class PolicyError(MapperError):
    """Possible, but against a rule that keeps keys safe."""


class EngineError(MapperError):
    """The engine process refused, failed, or is gone."""


class EngineMemoryError(EngineError):
    """The engine's key memory is full, or a KDF wants more memory than policy allows."""


class CoprocessorError(MapperError):
    """A coprocessor is missing, unreachable, or refused."""


class MasterKeyChangedError(CoprocessorError):
    """The key is wrapped by a master key that no reachable coprocessor holds now."""


class ProtectedKeyExpiredError(CoprocessorError):
    """The protected key belongs to another session of the engine."""
