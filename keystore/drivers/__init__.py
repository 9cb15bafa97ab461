"""The kinds of coprocessor there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..adapter_store import AdapterStore
from ..coprocessor import PKEY_DRIVER, Apqn, Coprocessor
from ..errors import CoprocessorError

if TYPE_CHECKING:
    from .pkcs11 import Pkcs11Coprocessor

DriverFactory = Callable[[AdapterStore, Apqn], Coprocessor]


def _make_soft(store: AdapterStore, apqn: Apqn) -> Coprocessor:
    from .soft import SoftCoprocessor

    return SoftCoprocessor(store, apqn)


def _make_pkey(store: AdapterStore, apqn: Apqn) -> Coprocessor:
    from .pkey import PkeyCoprocessor

    return PkeyCoprocessor(store, apqn)


def make_pkcs11(store: AdapterStore, apqn: Apqn) -> Pkcs11Coprocessor:
    """The adapter of the store that is a PKCS#11 token.

    Raises:
        CoprocessorError: python-pkcs11, which is optional, is not installed.
    """
    try:
        from .pkcs11 import Pkcs11Coprocessor
    except ImportError as error:
        raise CoprocessorError(
            f"adapter {apqn}: no python-pkcs11 ({error}); wanted: pip install 'fusecrypt[pkcs11]'"
        ) from error

    return Pkcs11Coprocessor(store, apqn)


SOFT_DRIVER: Final = "soft"
PKCS11_DRIVER: Final = "pkcs11"
#: What an adapter's file calls its driver; each is imported at its first use.
DRIVERS: Final[dict[str, DriverFactory]] = {
    SOFT_DRIVER: _make_soft,
    PKCS11_DRIVER: make_pkcs11,
    PKEY_DRIVER: _make_pkey,
}
