"""The choice among adapters: which can make, use or re-encipher a key; what is said if none can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .coprocessor import MODE_ACCEL, AdapterInfo, Apqn, Register, SeState, Status
from .ep11_session import describe_session
from .errors import CoprocessorError, MasterKeyChangedError
from .keys import SecureKey
from .tokens import KeyType

#: What makes keys of a type, for people.
_MAKERS: Final = {
    KeyType.CCA_AESDATA: "a CCA card",
    KeyType.CCA_AESCIPHER: "a card from CEX6C on",
    KeyType.EP11_AES: "an EP11 card from CEX7 on",
    KeyType.PKCS11_AES: "a PKCS#11 token",
}
CREATE_HINT: Final = "'fusecrypt adapter create' makes one"
#: For a key that is there already: a new adapter would have another master key, and be in the way.
RESTORE_HINT: Final = "'fusecrypt adapter restore FILE' of a backup brings its adapter back"


@dataclass(frozen=True, slots=True)
class Seen:
    """One adapter at the moment of a choice."""

    apqn: Apqn
    info: AdapterInfo | None
    problem: str = ""  # why there is no information

    def __str__(self) -> str:
        if self.info is None:
            return f"{self.apqn} cannot be read ({self.problem})"
        if self.info.mode == MODE_ACCEL:
            return f"{self.apqn} is an accelerator"
        if self.info.problem:
            return f"{self.apqn} cannot be used ({self.info.problem})"
        state = "has" if self.info.status is Status.ONLINE else f"is {self.info.status} and has"
        if self.info.is_control_only:
            state = "is administered only and has"
        if self.info.se_state is SeState.BOUND:
            state = "is bound, not associated with a secret, and has"
        return f"{self.apqn} {state} CURRENT {self.info.current}, OLD {self.info.old}"

    def find_register(self, secure_key: SecureKey) -> Register | None:
        """The register with this key's master key, if the adapter can be used for it."""
        if self.info is None or not self.can_use(secure_key.key_type):
            return None
        if not self.info.has_session(secure_key.session):
            return None
        return self.info.find_register(secure_key.mkvp)

    def can_use(self, key_type: KeyType) -> bool:
        """Whether keys of this type can be used with it now, but for their master key."""
        return self.info is not None and self.info.is_usable and self.info.supports(key_type)

    def find_mkvp(self, register: Register) -> bytes | None:
        """What a register holds, if the adapter can be used."""
        if self.info is None or not self.info.is_usable:
            return None
        state = self.info.get_register(register)
        return state.mkvp if state.is_usable else None


def find_named(seen: Sequence[Seen], apqns: Sequence[Apqn]) -> list[Seen]:
    """The adapters that were named, all if none was.

    Raises:
        CoprocessorError: one of them is not there.
    """
    missing = set(apqns) - {one.apqn for one in seen}
    if missing:
        raise CoprocessorError(f"adapter {min(missing)}: does not exist; {CREATE_HINT}")
    return [one for one in seen if one.apqn in apqns or not apqns]


def choose_makers(seen: Sequence[Seen], key_type: KeyType, apqns: Sequence[Apqn]) -> list[Apqn]:
    """Those that can make a key under one and the same master key, in order of preference.

    Raises:
        CoprocessorError: none can, or the named ones have different master keys.
    """
    seen = find_named(seen, apqns)
    able = [one for one in seen if one.find_mkvp(Register.CURRENT)]
    if not able:
        raise CoprocessorError(
            f"no adapter is online with a master key: {'; '.join(map(str, seen))}"
        )
    unfit = [one for one in able if not one.can_use(key_type)]
    if unfit and (apqns or len(unfit) == len(able)):
        cards = "; ".join(
            [f"{one.apqn} is a {one.info.type}" for one in unfit if one.info]
            + [str(one) for one in seen if one not in able]
        )
        raise CoprocessorError(f"{key_type}: wanted {_MAKERS[key_type]}: {cards}")
    able = [one for one in able if one not in unfit]
    mkvps = {one.find_mkvp(Register.CURRENT) for one in able}
    if apqns and len(mkvps) > 1:
        raise CoprocessorError(
            f"the adapters have different master keys: {'; '.join(map(str, able))}"
        )
    first = able[0].find_mkvp(Register.CURRENT)
    return [one.apqn for one in able if one.find_mkvp(Register.CURRENT) == first]


def find_holders(
    seen: Sequence[Seen], secure_key: SecureKey, apqns: Sequence[Apqn] = ()
) -> list[tuple[Apqn, Register]]:
    """The usable adapters that can use the key, those with its master key CURRENT first.

    Raises:
        MasterKeyChangedError: none can; says who has which master key.
        CoprocessorError: a named one is not there.
    """
    seen = find_named(seen, apqns)
    holders: list[tuple[Apqn, Register]] = [
        (one.apqn, wanted)
        for wanted in (Register.CURRENT, Register.OLD)
        for one in seen
        if one.find_register(secure_key) is wanted
    ]
    if holders:
        return holders
    strangers = [one for one in seen if one.info and one.info.find_register(secure_key.mkvp)]
    if strangers and not any(
        one.info.has_session(secure_key.session) for one in strangers if one.info
    ):
        states = "; ".join(_tell_session(one) for one in strangers)
        raise CoprocessorError(
            f"{describe_key(secure_key)}: bound to {describe_session(secure_key.session)}; {states}"
        )
    waiting = [str(one.apqn) for one in seen if one.info and one.info.new.mkvp == secure_key.mkvp]
    hint = f"; in NEW of {', '.join(waiting)}, not set yet" if waiting else ""
    raise MasterKeyChangedError(
        f"{describe_key(secure_key)}; adapters: {'; '.join(map(str, seen))}{hint}"
    )


def choose_reencipherers(
    seen: Sequence[Seen], secure_key: SecureKey, target: Register, apqns: Sequence[Apqn]
) -> list[Apqn]:
    """Those that have the key's master key, and all the same one in ``target``.

    Those that have the key under ``target`` already come alone: there is nothing to do.

    Raises:
        MasterKeyChangedError: none has the key's master key.
        CoprocessorError: none has a master key in ``target``, or they have different ones.
    """
    seen = find_named(seen, apqns)
    done = [
        one.apqn
        for one in seen
        if one.find_mkvp(target) == secure_key.mkvp and one.can_use(secure_key.key_type)
    ]
    if done:
        return done
    holders = dict(find_holders(seen, secure_key))
    able = [one for one in seen if one.apqn in holders and one.find_mkvp(target)]
    if not able:
        states = "; ".join(
            f"{one.apqn} has {target} {one.info.get_register(target).state}"
            for one in seen
            if one.apqn in holders and one.info
        )
        raise CoprocessorError(
            f"{describe_key(secure_key)}: no adapter that has it has a {target} master key: "
            f"{states}"
        )
    mkvps = {one.find_mkvp(target) for one in able}
    if len(mkvps) > 1:
        states = "; ".join(
            f"{one.apqn} has {target} {one.info.get_register(target)}" for one in able if one.info
        )
        raise CoprocessorError(f"the adapters have different {target} master keys: {states}")
    return [apqn for apqn in holders if any(one.apqn == apqn for one in able)]


def _tell_session(one: Seen) -> str:
    """Why an adapter that has the master key of a key bound to a session cannot use it."""
    assert one.info is not None
    if one.info.session:
        return f"{one.apqn} has {describe_session(one.info.session)}"
    return f"{one.apqn} is {one.info.se_state}, not associated with its secret"


def describe_key(secure_key: SecureKey) -> str:
    """What messages call a key."""
    return f"key wrapped by master key MKVP {secure_key.mkvp.hex()} ({secure_key.key_type})"
