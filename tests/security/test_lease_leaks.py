"""A key whose lease is over, or whose session, is in no process; and it comes again.

The engine is told to do without memfd_secret, so that the scanner can look into its key memory, and
finds the key there while the engine has it.
"""

import os

import pytest

from tests.product import wait_for
from tests.security.leak_scan import Search
from tests.security.readable_keys import start_with_readable_keys

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def test_a_forgotten_key_is_nowhere_and_the_next_io_brings_it(instance, volumes):
    lines, patterns = volumes
    wanted = {name: line for name, line in lines if name in ("paes", "plain")}
    start_with_readable_keys(instance, f"{wanted['paes']},x-fusecrypt-idle=5", wanted["plain"])
    mine = Search({what: p for what, p in patterns.items() if what.startswith("paes")})
    other = Search({what: p for what, p in patterns.items() if what.startswith("plain")})

    def key():
        return instance.cli("status", "paes", "--json").json["key"]

    def use():
        """From the engine, not from the kernel's cache; the key is there then."""
        fd = os.open(instance.device("paes"), os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 4096, 0)
        os.close(fd)
        assert mine.process(instance.engine_pid).hits

    def check_nowhere():
        for pid, words in instance.pids().items():
            findings = mine.process(pid)
            assert not findings.hits, f"{words}:\n{findings}"
        assert other.process(instance.engine_pid).hits

    use()
    wait_for(lambda: key()["state"] == "forgotten", "idle")
    check_nowhere()
    use()
    assert key()["derivations"] == 2
    instance.cli("adapter", "bump-session")
    check_nowhere()
    use()
    assert key()["derivations"] == 3
    assert instance.stop() == 0
