"""The control points of an EP11 domain: what it lets be done with keys.

Source: XCP_CPB_* in ep11.h of IBM's EP11 host library, numbers and checks. Real domains have more
of them; here are those that concern what virtual ones do. A new domain has all of these on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Final

from .errors import ConfigError, CoprocessorError, UnsupportedError

PREFIX: Final = "XCP_CPB_"
#: Bits of all halves that a volume key can have, and the control point for them.
_SIZES: Final = {128: "KEYSZ_128BIT", 192: "KEYSZ_192BIT", 256: "KEYSZ_256BIT"}


class ControlPoint(IntEnum):
    """One that means something here; the number is its bit."""

    ADD_CPBS = 0  # control points may be turned on
    DELETE_CPBS = 1  # control points may be turned off
    ENCRYPT_SYMM = 5  # a clear key is brought in: enciphered,
    UNWRAP_SYMM = 11  # and unwrapped again
    KEYGEN_SYMM = 13  # keys are generated, and brought in
    KEYSZ_128BIT = 26
    KEYSZ_192BIT = 27
    KEYSZ_256BIT = 28
    ALLOW_NONSESSION = 48  # keys need not be bound to a session
    CPACF_PK = 64  # keys become protected keys
    ALLOW_COMBINED_EXTRACT = 75  # keys that can be exported, too

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}"


DEFAULT: Final = frozenset(ControlPoint)
#: Published ones that concern nothing that a virtual adapter does.
_WITHOUT_MEANING: Final = frozenset(
    {
        "SIGN_ASYMM", "SIGN_SYMM", "SIGVERIFY_SYMM", "DECRYPT_ASYMM", "DECRYPT_SYMM", "WRAP_ASYMM",
        "WRAP_SYMM", "UNWRAP_ASYMM", "KEYGEN_ASYMM", "RETAINKEYS", "SKIP_KEYTESTS",
        "NON_ATTRBOUND", "MODIFY_OBJECTS", "RNG_SEED", "ALG_RAW_RSA", "ALG_NFIPS2009",
        "ALG_NBSI2009", "KEYSZ_HMAC_ANY", "KEYSZ_BELOW80BIT", "KEYSZ_80BIT", "KEYSZ_112BIT",
        "KEYSZ_RSA65536", "ALG_RSA", "ALG_DSA", "ALG_EC", "ALG_EC_BPOOLCRV", "ALG_EC_NISTCRV",
        "ALG_NFIPS2011", "ALG_NBSI2011", "USER_SET_TRUSTED", "ALG_SKIP_CROSSCHK",
        "WRAP_CRYPT_KEYS", "SIGN_CRYPT_KEYS", "WRAP_SIGN_KEYS", "USER_SET_ATTRBOUND",
        "ALLOW_PASSPHRASE", "WRAP_STRONGER_KEY", "WRAP_WITH_RAW_SPKI", "ALG_DH", "DERIVE",
        "ALG_EC_25519", "ALG_EC_SECGCRV", "ALG_NBSI2017", "ALG_PQC", "BTC", "ECDSA_OTHER",
        "ALG_NFIPS2021", "ALG_NFIPS2024", "COMPAT_LEGACY_SHA3", "DSA_PARAMETER_GEN",
        "DERIVE_NON_AB_KEYS", "ALLOW_LOGIN_PRE_F2021", "ALG_RSA_OAEP", "ALG_EC_PAIRING_FRIENDLY",
        "ALG_DILITHIUM", "ALG_KYBER", "ALG_ML_DSA", "ALG_ML_KEM",
    }
)  # fmt: skip


def parse_control_point(text: str) -> ControlPoint:
    """The control point of this name, in any case, with XCP_CPB_ or without.

    Raises:
        UnsupportedError: one that virtual adapters do not have.
        ConfigError: none.
    """
    name = text.upper().removeprefix(PREFIX)
    if name in ControlPoint.__members__:
        return ControlPoint[name]
    if name in _WITHOUT_MEANING:
        raise UnsupportedError(f"control point {PREFIX}{name}: virtual adapters do not have it")
    wanted = ", ".join(point.name for point in ControlPoint)
    raise ConfigError(f"control point {text!r}: unknown; wanted: {wanted}")


def change(
    points: frozenset[ControlPoint],
    turn_on: Collection[ControlPoint],
    turn_off: Collection[ControlPoint],
    where: str,
) -> frozenset[ControlPoint]:
    """The control points that are on after a change.

    Raises:
        ConfigError: one is to be turned on and off.
        CoprocessorError: those that are on do not allow it.
    """
    both = sorted(set(turn_on) & set(turn_off))
    if both:
        raise ConfigError(f"control point {both[0]}: to be turned on and off")
    if set(turn_on) - points:
        require(points, [ControlPoint.ADD_CPBS], where)
    if set(turn_off) & points:
        require(points, [ControlPoint.DELETE_CPBS], where)
    return points.union(turn_on).difference(turn_off)


def require(points: frozenset[ControlPoint], wanted: Sequence[ControlPoint], where: str) -> None:
    """That all of these are on.

    Raises:
        CoprocessorError: one is not; ``where`` names the adapter.
    """
    for point in wanted:
        if point not in points:
            raise CoprocessorError(f"{where}: refused, its control point {point} is off")


def find_for_size(key_bits: int) -> ControlPoint:
    """What allows AES keys of this size."""
    return ControlPoint[_SIZES[key_bits]]
