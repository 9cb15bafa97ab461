"""What one virtual EP11 domain does with keys: as its session and its control points let it."""

from __future__ import annotations

from collections.abc import Sequence

from . import ep11
from .clear_bytes import wipe
from .control_points import ControlPoint, find_for_size, require
from .coprocessor import AdapterInfo, SeState
from .ep11_session import Session
from .ep11_token import EXTRACTABLE, Ep11Token
from .errors import CoprocessorError
from .key_type import KeyType
from .keys import SecureKey


class Ep11Domain:
    """The domain for the length of an operation: what wraps and unwraps keys there."""

    def __init__(self, info: AdapterInfo, session: Session | None) -> None:
        """``session``: what the domain is associated with.

        Raises:
            CoprocessorError: bound to a guest, and not associated: it does nothing.
        """
        self._where = f"adapter {info.apqn}"
        if info.se_state is SeState.BOUND:
            raise CoprocessorError(
                f"{self._where}: bound, and not associated with a secret: 'chzcrypt --se-associate'"
            )
        self._points = info.control_points
        self._session = session

    def wrap_key(
        self,
        key_type: KeyType,
        clear: bytearray,
        master_key: bytearray,
        *,
        is_xts: bool,
        is_random: bool = True,
        is_exportable: bool = False,
    ) -> SecureKey:
        """As `ep11.wrap_key`; bound to the session if there is one.

        Raises:
            CoprocessorError: a control point forbids it.
            FormatError, UnsupportedError: as there.
        """
        wanted = [ControlPoint.KEYGEN_SYMM]
        if not is_random:
            wanted += [ControlPoint.ENCRYPT_SYMM, ControlPoint.UNWRAP_SYMM]
        key = ep11.wrap_key(
            key_type,
            clear,
            master_key,
            is_xts=is_xts,
            is_exportable=is_exportable,
            session=self._session,
        )
        self._require([*wanted, *_list_for_use(key), _find_size(clear, key)])
        return key

    def unwrap_key(self, secure_key: SecureKey, master_key: bytearray) -> bytearray:
        """As `ep11.unwrap_key`.

        Raises:
            CoprocessorError: a control point forbids it, or the session is another one.
            FormatError, UnsupportedError: as there.
        """
        self._require(_list_for_use(secure_key))
        clear = ep11.unwrap_key(secure_key, master_key, self._session)
        try:
            self._require([_find_size(clear, secure_key)])  # the token need not tell it
        except CoprocessorError:
            wipe(clear)
            raise
        return clear

    def rewrap_key(
        self, secure_key: SecureKey, master_key: bytearray, target: bytearray
    ) -> SecureKey:
        """As `ep11.rewrap_key`, which no control point forbids: an administrator's work.

        Raises:
            CoprocessorError: the session is another one.
            FormatError, UnsupportedError: as there.
        """
        return ep11.rewrap_key(secure_key, master_key, target, self._session)

    def _require(self, wanted: Sequence[ControlPoint]) -> None:
        require(self._points, wanted, self._where)


def _list_for_use(key: SecureKey) -> list[ControlPoint]:
    """What must be on for the key to be there and to become a protected key."""
    wanted = [ControlPoint.CPACF_PK]
    for half in key.halves:
        if not isinstance(half, Ep11Token):
            continue
        if not half.is_session_bound:
            wanted.append(ControlPoint.ALLOW_NONSESSION)
        if half.attributes & EXTRACTABLE:
            wanted.append(ControlPoint.ALLOW_COMBINED_EXTRACT)
    return wanted


def _find_size(clear: bytearray, key: SecureKey) -> ControlPoint:
    return find_for_size(len(clear) * 8 // len(key.halves))
