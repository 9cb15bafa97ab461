"""The actions about what EP11 adapters let be done, and the secrets of their sessions."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .s390_options import S390_COMMON


def _load_control_points() -> Action:
    from .adapter_control_points import run

    return run


def _load_create() -> Action:
    from .pvsecret import run_create

    return run_create


def _load_add() -> Action:
    from .pvsecret import run_add

    return run_add


def _load_list() -> Action:
    from .pvsecret import run_list

    return run_list


def _load_lock() -> Action:
    from .pvsecret import run_lock

    return run_lock


GUEST_COMMANDS: Final[dict[str, Command]] = {
    "adapter control-points": Command(
        "adapter control-points [--set NAME]… [--clear NAME]… CARD.DOMAIN",
        "Show, or change, what an adapter in EP11 mode lets be done with keys",
        _load_control_points,
        frozenset({"set", "clear"}),
        minimum=1,
        maximum=1,
    ),
    "pvsecret create association": Command(
        "pvsecret create association --output FILE [--input-secret FILE] [--output-secret FILE]"
        " NAME",
        "Make a request to add an association secret",
        _load_create,
        frozenset({"output", "input-secret", "output-secret"}),
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "pvsecret add": Command(
        "pvsecret add FILE",
        "Add the association secret of a request",
        _load_add,
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "pvsecret list": Command(
        "pvsecret list",
        "List the ids of the association secrets",
        _load_list,
        common=S390_COMMON,
    ),
    "pvsecret lock": Command(
        "pvsecret lock",
        "Take no more association secrets until the next boot",
        _load_lock,
        common=S390_COMMON,
    ),
}
