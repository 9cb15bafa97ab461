"""A daemon whose engine does without memfd_secret, as on a kernel that lacks it.

So a search can look into the memory of its keys, and finds them as long as they are there.
"""

import sys

from tests.product import Instance

_PROGRAM = """
import subprocess, sys
from fusecrypt.daemon.__main__ import main
from fusecrypt.dmcrypt.engine import process

class Subprocess:
    def __getattr__(self, name):
        return getattr(subprocess, name)
    def Popen(self, words, **options):
        return subprocess.Popen([*words, "--force-mlock"], **options)

process.subprocess = Subprocess()
sys.exit(main())
"""


def get_arena_kind(instance: Instance) -> str:
    """Where the engine has its keys."""
    return instance.cli("status", "--json").json["arena"]["kind"]


def start_with_readable_keys(instance: Instance, *lines: str) -> None:
    """Start it with a crypttab of ``lines``."""
    program = instance.write_file("fusecryptd-without.py", _PROGRAM.encode())
    instance.daemon_command = [sys.executable, str(program)]
    instance.start(*lines)
    assert get_arena_kind(instance) == "mlock"
