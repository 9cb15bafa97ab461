"""What python-pkcs11 makes at run time of an object of a token, by what it can do."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Protocol

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

Template = Mapping[Attribute, object]


class TokenKey(Protocol):
    """A key in a token: not every key can do all of it."""

    def encrypt(self, data: bytes, *, mechanism: Mechanism) -> bytes:
        """The data, enciphered."""
        ...

    def wrap_key(
        self, key: TokenKey, *, mechanism: Mechanism, mechanism_param: object = None
    ) -> bytes:
        """Another key, wrapped by this one."""
        ...

    def unwrap_key(
        self,
        object_class: ObjectClass,
        key_type: KeyType,
        key_data: bytes,
        *,
        mechanism: Mechanism,
        mechanism_param: object,
        store: bool,
        capabilities: MechanismFlag,
        template: Template,
    ) -> TokenKey:
        """The key inside, as an object of the token."""
        ...

    def __getitem__(self, attribute: Attribute) -> object: ...

    def __setitem__(self, attribute: Attribute, value: object) -> None: ...

    def destroy(self) -> None:
        """Remove it from the token."""
        ...


@contextmanager
def destroyed(key: TokenKey) -> Generator[TokenKey, None, None]:
    """A key for the length of a block, at whose end it is destroyed."""
    try:
        yield key
    finally:
        key.destroy()


def get_bytes(key: TokenKey, attribute: Attribute) -> bytes:
    """An attribute that is bytes."""
    value = key[attribute]
    assert isinstance(value, bytes)
    return value


def is_kept(key: TokenKey) -> bool:
    """The token lets nobody read the key, and does not wrap it either."""
    return bool(key[Attribute.SENSITIVE]) and not key[Attribute.EXTRACTABLE]
