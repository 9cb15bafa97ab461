"""The asking process, on a pseudo-terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from fusecrypt.daemon import ask


class Asked:
    """The program with a terminal, and what it gave."""

    def __init__(self, prompt="Passphrase:", limit="0"):
        self.master, self.terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", ask.__file__, prompt, limit],
            stdin=self.terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def has_echo(self):
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    def wait_prompt(self, text=b"Passphrase:"):
        seen = b""
        while text not in seen:
            assert select.select([self.master], [], [], 10)[0]
            seen += os.read(self.master, 100)

    def type(self, data):
        self.wait_prompt()
        assert not self.has_echo()
        os.write(self.master, data)

    def finish(self):
        output, errors = self.process.communicate(timeout=10)
        assert errors == b""
        assert self.has_echo()
        return self.process.returncode, output

    def close(self):
        self.process.kill()
        self.process.communicate()
        os.close(self.master)
        os.close(self.terminal)


@pytest.fixture
def asked():
    made = []

    def make(*arguments):
        made.append(Asked(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_line_is_passed_on(asked):
    one = asked()
    one.type("pässword with blanks \n".encode())
    assert one.finish() == (ask.ASKED, "pässword with blanks \n".encode())


def test_nothing_of_it_is_echoed(asked):
    one = asked()
    one.type(b"hidden\n")
    one.finish()
    assert os.read(one.master, 100) == b"\r\n"


def test_an_empty_passphrase_is_one(asked):
    one = asked()
    one.type(b"\n")
    assert one.finish() == (ask.ASKED, b"\n")


def test_end_of_file_is_no_passphrase(asked):
    one = asked()
    one.type(b"\x04")
    assert one.finish() == (ask.NOTHING, b"")


def test_time_is_up(asked):
    one = asked("Passphrase:", "0.2")
    assert one.finish() == (ask.TIMED_OUT, b"")


def test_what_was_typed_before_the_question_does_not_answer_it():
    master, terminal = pty.openpty()
    os.write(master, b"early\n")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", ask.__file__, "Passphrase:", "0.3"],
        stdin=terminal,
        stdout=subprocess.PIPE,
    )
    assert process.communicate(timeout=10)[0] == b""
    assert process.returncode == ask.TIMED_OUT
    os.close(master)
    os.close(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_gives_the_echo_back(asked, number):
    one = asked()
    one.wait_prompt()
    one.process.send_signal(number)
    assert one.finish() == (128 + number, b"")


def test_no_terminal():
    done = subprocess.run(
        [sys.executable, "-I", "-S", ask.__file__, "Passphrase:", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ask.NO_TERMINAL, b"", b"")


def test_its_memory_is_nobodys(asked):
    one = asked()
    one.wait_prompt()
    # Not dumpable: its files in /proc belong to root, and no core is made.
    deadline = time.monotonic() + 5
    while os.stat(f"/proc/{one.process.pid}/mem").st_uid != 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.stat(f"/proc/{one.process.pid}/mem").st_uid == 0
