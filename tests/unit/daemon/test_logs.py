"""How log lines look in the journal, in a file, on a terminal."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from fusecrypt.daemon.logs import start_logging
start_logging(is_debug=False, has_times={has_times})
logging.error("broken\\ntwice")
logging.warning("odd")
logging.info("new")
logging.debug("not shown")
logging.getLogger("pyfuse3").info("not shown")
"""


def run(*, has_times=False, in_journal=False):
    readable, writable = os.pipe()
    environment = dict(os.environ)
    environment.pop("JOURNAL_STREAM", None)
    if in_journal:
        status = os.fstat(writable)
        environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    code = PROGRAM.format(has_times=has_times)
    subprocess.run([sys.executable, "-c", code], stderr=writable, check=True, env=environment)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        return pipe.read().splitlines()


def test_the_journal_gets_priorities_of_each_line():
    assert run(in_journal=True) == ["<3>broken", "<3>twice", "<4>odd", "<6>new"]


def test_a_terminal_gets_the_programs_name():
    assert run() == ["fusecryptd: broken", "twice", "fusecryptd: odd", "fusecryptd: new"]


@pytest.mark.parametrize("in_journal", [False, True])
def test_times_are_for_files(in_journal):
    line = run(has_times=True, in_journal=in_journal)[-1]
    assert line.endswith("INFO: new") is not in_journal
