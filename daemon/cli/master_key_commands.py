"""The actions of master-key."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .master_key_options import COMMON


def _load_plan() -> Action:
    from .master_key import run_plan

    return run_plan


def _load_stage() -> Action:
    from .master_key import run_stage

    return run_stage


def _load_complete() -> Action:
    from .master_key import run_complete

    return run_complete


def _load_rollback() -> Action:
    from .master_key import run_rollback

    return run_rollback


_PATHS_MAX: Final = 4096
_FORCE: Final = frozenset({"force"})

MASTER_KEY_COMMANDS: Final[dict[str, Command]] = {
    "master-key plan": Command(
        "master-key plan [OPTIONS] [SOURCE]…",
        "Say what a change of the master key still has to do",
        _load_plan,
        maximum=_PATHS_MAX,
        common=COMMON,
    ),
    "master-key stage": Command(
        "master-key stage [OPTIONS] [SOURCE]…",
        "Re-encipher all keys and volumes, to wait for the NEW master key",
        _load_stage,
        _FORCE,
        maximum=_PATHS_MAX,
        common=COMMON,
    ),
    "master-key complete": Command(
        "master-key complete [OPTIONS] [SOURCE]…",
        "Put all that waits into its place",
        _load_complete,
        _FORCE,
        maximum=_PATHS_MAX,
        common=COMMON,
    ),
    "master-key rollback": Command(
        "master-key rollback [OPTIONS] [SOURCE]…",
        "Forget all that waits",
        _load_rollback,
        maximum=_PATHS_MAX,
        common=COMMON,
    ),
}
