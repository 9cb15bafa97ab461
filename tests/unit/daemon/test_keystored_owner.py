"""Who may listen where a keystored is looked for."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fusecrypt.daemon.config import load_settings
from fusecrypt.daemon.keystored.client import Keystore
from fusecrypt.keystore.errors import CoprocessorError

LISTENER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_root_hands_nothing_to_a_keystored_of_another_user(tmp_path: Path) -> None:
    place = Path("/run") / f"fusecrypt-test.{os.getpid()}"
    place.mkdir()
    os.chown(place, 65534, 65534)
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-c", LISTENER, place / "keystore"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"listening\n"
            environment = {"FUSECRYPT_RUNTIME_DIR": str(place), "HOME": str(tmp_path)}
            keystore = Keystore(load_settings(environment=environment))
            with pytest.raises(CoprocessorError, match="user 65534 listens there"):
                keystore.list_adapters()
            assert other.stdin is not None
            other.stdin.close()
    finally:
        (place / "keystore").unlink(missing_ok=True)
        place.rmdir()


def test_what_oneself_or_root_listens_at_is_asked(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "keystore"))
        listener.listen(8)
        environment = {"FUSECRYPT_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
        connection = Keystore(load_settings(environment=environment))._open()
        assert connection.get_owner() == os.geteuid()
        connection.close()
