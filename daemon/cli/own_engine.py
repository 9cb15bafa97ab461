"""An engine for one command, which needs keys but no daemon."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator

from ...dmcrypt.engine.client import Engine, Secret
from ...dmcrypt.engine.messages import SecretMode
from ...dmcrypt.engine.process import spawn_engine
from ..control.messages import KeyInput
from .key_input import KeyOptions, provide_key

_PATIENCE = 5.0  # seconds; an engine without devices has nothing to flush


@contextlib.contextmanager
def run_engine() -> Generator[Engine, None, None]:
    """An engine process that ends with the block.

    Raises:
        EngineError: it did not start.
    """
    process = spawn_engine()
    try:
        yield process.engine
    finally:
        process.close()
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load_secret(engine: Engine, key: KeyInput) -> Secret:
    """The passphrase or key file in the engine's memory."""
    mode = SecretMode.LINE if key.mode == "line" else SecretMode.ALL
    return engine.load_secret(key.fd, mode, offset=key.offset, size=key.size)


@contextlib.contextmanager
def read_secret(engine: Engine, key: KeyOptions, prompt: str) -> Generator[Secret, None, None]:
    """The passphrase or key file in the engine's memory, from where the caller has it.

    Raises:
        MapperError: as `provide_key`.
    """
    with provide_key(key, prompt) as given, load_secret(engine, given) as secret:
        yield secret
