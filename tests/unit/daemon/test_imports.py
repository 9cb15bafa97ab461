"""What the daemon's process loads."""

import subprocess
import sys


def test_the_daemon_loads_no_cryptography():
    # It handles no key; and the library takes 8 MiB. Ciphers are the engine's and keystored's.
    program = "import sys, fusecrypt.daemon.supervisor; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"
