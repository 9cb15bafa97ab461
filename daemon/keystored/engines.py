"""The engines that run as units of the service: whose public keys keystored takes, and no others.

Each answers at DIRECTORY/UNIT/claim (dmcrypt/engine/src/claim.h). The directory is root's, and
systemd makes what is in it for the units' own user: so nobody else, the daemon least of all, can
answer there. Public keys are asked for when they are met. So nothing has to be kept here, and
nothing is lost when keystored, or an engine, is started again.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Final

from ...dmcrypt.engine.start import CLAIM_NAME
from ...keystore.errors import AccessError

log = logging.getLogger(__name__)

#: Seconds. An engine answers in no time, but for one that makes its RSA key.
_TIMEOUT: Final = 3.0
_YES: Final = b"\x01"


class Engines:
    """All engines of the service."""

    def __init__(self, directory: Path) -> None:
        """Asks nobody yet; there may be none."""
        self._directory = directory

    def hold(self, public_key: bytes) -> bool:
        """Whether one of them has made this key. Blocks.

        Raises:
            AccessError: others than root could put an engine of theirs into the directory.
        """
        try:
            status = self._directory.lstat()
            units = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise AccessError(f"{self._directory}: cannot read it: {error.strerror}") from None
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise AccessError(
                f"{self._directory}: user {status.st_uid}, mode {status.st_mode & 0o7777:04o};"
                " wanted: root's, and nobody else may write there"
            )
        return any(self._ask(unit / CLAIM_NAME, public_key) for unit in units)

    def _ask(self, path: Path, public_key: bytes) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(str(path))
                connection.send(public_key)
                return connection.recv(len(_YES) + 1) == _YES
        except OSError as error:
            log.info("%s: no answer: %s", path, error.strerror or error)
            return False
