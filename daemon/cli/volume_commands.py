"""The actions that change an open volume, and those that only look: at ciphers, at an image."""

from __future__ import annotations

from typing import Final

from .command import Action, Command


def _load_suspend() -> Action:
    from .suspend import run_suspend

    return run_suspend


def _load_resume() -> Action:
    from .suspend import run_resume

    return run_resume


def _load_resize() -> Action:
    from .resize import run

    return run


def _load_benchmark() -> Action:
    from .benchmark import run

    return run


def _load_refresh() -> Action:
    from .refresh import run

    return run


def _load_check() -> Action:
    from .check import run

    return run


# Of the header and its key; luksResume alone needs them, cryptsetup's resize and refresh do, too.
_KEY: Final = frozenset(
    {
        "header",
        "key-file",
        "keyfile-offset",
        "keyfile-size",
        "key-slot",
        "tries",
        "timeout",
        "verify-passphrase",
        "token-id",
        "token-type",
        "token-only",
    }
)

VOLUME_COMMANDS: Final[dict[str, Command]] = {
    "luksSuspend": Command(
        "luksSuspend [--fail-io] NAME",
        "Forget the key of an open volume; its I/O waits, or fails",
        _load_suspend,
        frozenset({"fail-io", "header"}),
        minimum=1,
        maximum=1,
    ),
    "luksResume": Command(
        "luksResume [OPTIONS] NAME",
        "Give a suspended volume its key again",
        _load_resume,
        _KEY | {"type"},
        minimum=1,
        maximum=1,
    ),
    "resize": Command(
        "resize [--size SECTORS | --device-size SIZE] NAME",
        "Give an open volume another size",
        _load_resize,
        _KEY | {"size", "device-size"},
        minimum=1,
        maximum=1,
    ),
    "refresh": Command(
        "refresh [--allow-discards] [--persistent] NAME",
        "Pass discards of an open volume on, or no longer",
        _load_refresh,
        _KEY | {"allow-discards", "persistent", "refresh", "type"},
        minimum=1,
        maximum=1,
    ),
    "check": Command(
        "check [OPTIONS] SOURCE",
        "Say everything there is to say about a LUKS header",
        _load_check,
        frozenset(
            {
                "header",
                "header-backup-file",
                "key-file",
                "keyfile-offset",
                "keyfile-size",
                "key-slot",
            }
        ),
        minimum=1,
        maximum=1,
    ),
    "benchmark": Command(
        "benchmark [OPTIONS]",
        "Measure KDFs and ciphers",
        _load_benchmark,
        frozenset(
            {
                "cipher",
                "key-size",
                "hash",
                "sector-size",
                "iter-time",
                "pbkdf",
                "pbkdf-memory",
                "pbkdf-parallel",
            }
        ),
    ),
}
