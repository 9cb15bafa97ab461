"""Clear keys that an engine process is given."""

import os

from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.keystore.keys import ProtectedKey


def load_key(engine: Engine, key: bytes) -> ProtectedKey:
    """The key, by a pipe as from the standard input of a command."""
    reader, writer = os.pipe()
    os.write(writer, key)
    os.close(writer)
    try:
        return engine.load_key(reader, len(key), xts=False)
    finally:
        os.close(reader)
