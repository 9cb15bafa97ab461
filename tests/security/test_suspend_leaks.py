"""A suspended volume's key is nowhere: not in the engine, not in the daemon, not in keystored.

The engine is told to do without memfd_secret, so that the scanner can look into its key memory, and
finds the keys there before they go.
"""

import pytest

from tests.security.conftest import PASSPHRASE
from tests.security.leak_scan import Search
from tests.security.readable_keys import start_with_readable_keys

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def test_keys_are_found_before_a_suspension_and_not_during_it(instance, volumes):
    lines, patterns = volumes
    start_with_readable_keys(instance, *(line for _name, line in lines))
    for name in ("xts", "cbc", "paes"):
        # Used, so that every cipher context of a thread has been in use.
        instance.device(name).read_bytes()
        mine = Search({what: p for what, p in patterns.items() if what.startswith(name)})
        assert mine.process(instance.engine_pid).hits, name
        instance.cli("luksSuspend", name)
        for pid, words in instance.pids().items():
            findings = mine.process(pid)
            assert not findings.hits, f"{name}: {words}:\n{findings}"
    everything = Search({what: p for what, p in patterns.items() if not what.startswith("plain")})
    for pid, words in instance.pids().items():
        findings = everything.process(pid)
        assert not findings.hits, f"{words}:\n{findings}"
    # The scanner still sees keys: those of the volume that was not suspended.
    plain = Search({what: p for what, p in patterns.items() if what.startswith("plain")})
    assert plain.process(instance.engine_pid).hits
    instance.cli("luksResume", "xts", stdin=PASSPHRASE)
    assert instance.device("xts").read_bytes()
    assert instance.stop() == 0
