"""Starts and ends: in the background, with questions, with failures, and cut short."""

import json
import os
import select
import signal
import stat
import subprocess
import sys
import termios
import time

import pytest

from tests.fuse.test_tree import SIZE, make_plain
from tests.lab import cryptsetup
from tests.product import command, mounts_below, running, wait_for

pytestmark = pytest.mark.fuse

PASSPHRASE = b"correct horse"


class Terminal:
    """A command with a controlling terminal of its own, and somebody typing at it."""

    def __init__(self, instance, *words):
        self.output = b""
        self.pid, self.fd = os.forkpty()
        if self.pid == 0:
            os.execvpe(words[0], words, instance.environment)

    def expect(self, text, count=1):
        wait_for(lambda: self.read() and self.output.count(text) >= count, f"{text!r} on terminal")

    def read(self):
        while select.select([self.fd], [], [], 0.02)[0]:
            try:
                data = os.read(self.fd, 4096)
            except OSError:  # EIO: nobody has the other side open
                break
            self.output += data
        return self.output

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def answer(self, line):
        wait_for(lambda: not self.echoes(), "echo off")
        os.write(self.fd, line + b"\n")

    def wait(self):
        def ended():
            self.read()
            return os.waitpid(self.pid, os.WNOHANG)

        return wait_for(lambda: (r := ended())[0] and r, "the command ends")[1]

    def close(self):
        os.close(self.fd)


@pytest.fixture
def asked(instance):
    """A crypttab line without a key file, for a volume with a passphrase."""
    key = instance.write_file("key", PASSPHRASE)
    image = cryptsetup.luks_format(instance.directory / "image", key, SIZE)
    return f"v {image} none luks"


def start_on_terminal(instance, *lines):
    instance.crypttab.write_text("".join(f"{line}\n" for line in lines))
    return Terminal(instance, *command("fusecryptd"), "--fork")


def test_a_background_start_returns_when_the_volumes_are_there(instance):
    instance.crypttab.write_text(make_plain(instance, "v") + "\n")
    result = instance.run_daemon("--fork")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert instance.device("v").stat().st_size == SIZE
    pid = instance.pid("fusecryptd")
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {
        "/dev/null",
        str(instance.runtime_dir / "log"),
    }
    log = instance.runtime_dir / "log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "v: open" in log.read_text()
    instance.stop()


def test_a_runtime_directory_behind_a_symbolic_link(instance):
    link = instance.directory / "link"
    link.symlink_to(instance.runtime_dir)
    instance.crypttab.write_text(make_plain(instance, "v") + "\n")
    assert instance.run_daemon("--fork", "--runtime-dir", link).status == 0
    engine = instance.engine_pid
    instance.signal(instance.pid("fusecryptd"), signal.SIGKILL)
    instance.signal(engine, signal.SIGKILL)
    instance.wait_gone()
    assert instance.run_daemon("--fork", "--runtime-dir", link).status == 0
    for pid in instance.pids():
        instance.signal(pid, signal.SIGKILL)
    wait_for(lambda: not instance.pids(), "all gone")
    assert instance.run_daemon("--fork", "--runtime-dir", link).status == 0
    assert instance.device("v").stat().st_size == SIZE
    instance.stop()


def test_closed_standard_descriptors_are_no_trap(instance):
    instance.crypttab.write_text(make_plain(instance, "v") + "\n")
    words = [*command("fusecryptd"), "--fork"]
    script = f"exec {' '.join(words)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], env=instance.environment).returncode == 0
    assert instance.device("v").stat().st_size == SIZE
    with instance.device("v").open("rb") as file:
        assert len(file.read(4096)) == 4096
    instance.stop()
    assert "Traceback" not in instance.read_log()


def test_command_lines_hold_no_word_of_each_other(instance):
    instance.start(make_plain(instance, "v"))
    lines = instance.pids().values()
    assert sum("fusecryptd" in line for line in lines) == 1
    assert sum("fusecrypt.dmcrypt.engine" in line for line in lines) == 1
    assert instance.stop() == 0


def test_a_required_failure_is_status_10_and_the_rest_is_served(instance):
    good = make_plain(instance, "good")
    lines = [good, "bad /nowhere none luks", "worse /nowhere none luks,nofail"]
    instance.crypttab.write_text("\n".join(lines) + "\n")
    result = instance.run_daemon("--fork")
    assert result.status == 10
    words = result.stderr.splitlines()
    assert words[0].startswith("fusecryptd: bad: /nowhere: no such file")
    assert words[1] == "fusecryptd: 1 of 3 volumes open"
    assert len(words) == 2
    assert instance.device("good").exists()
    states = {e["name"]: e["state"] for e in instance.cli("list", "--json").json["entries"]}
    assert states == {"good": "open", "bad": "failed", "worse": "failed"}
    instance.stop()


def test_only_nofail_failures_are_status_0(instance):
    instance.crypttab.write_text("v /nowhere none luks,nofail\n")
    assert instance.run_daemon("--fork").status == 0
    instance.stop()


def test_a_bad_line_is_named_and_the_others_are_used(instance):
    good = make_plain(instance, "good")
    instance.crypttab.write_text(f"alone\nx /img none luks,swap\n{good}\n")
    result = instance.run_daemon("--fork")
    assert result.status == 10
    assert f"{instance.crypttab}:1: alone" in result.stderr
    assert f"x: {instance.crypttab}:2: swap: not supported" in result.stderr
    assert instance.device("good").exists()
    instance.stop()


def test_an_empty_crypttab_is_no_failure(instance):
    instance.crypttab.write_text("")
    assert instance.run_daemon("--fork").status == 0
    instance.stop()


def test_a_missing_crypttab_is_named(instance):
    instance.crypttab.unlink()
    result = instance.run_daemon("--fork")
    assert result.status == 4
    assert str(instance.crypttab) in result.stderr
    assert not instance.pids()


def test_a_second_background_daemon_is_refused(instance):
    instance.start(make_plain(instance, "v"))
    result = instance.run_daemon("--fork")
    assert result.status == 5
    assert str(instance.daemon_pid) in result.stderr
    assert instance.stop() == 0


def test_a_runtime_directory_that_others_write_is_refused(instance):
    instance.runtime_dir.chmod(0o777)
    assert instance.run_daemon("--fork").status == 1
    instance.runtime_dir.chmod(0o700)


def test_passphrases_are_asked_on_the_callers_terminal(instance, asked):
    terminal = start_on_terminal(instance, asked)
    terminal.expect(b"passphrase for disk")
    assert b"no key available" not in terminal.output
    terminal.answer(b"wrong")
    terminal.expect(b"passphrase for disk", 2)
    assert b"no key available" in terminal.output
    terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0, terminal.output
    assert terminal.echoes()
    assert PASSPHRASE not in terminal.output
    terminal.close()
    assert instance.device("v").exists()
    assert PASSPHRASE.decode() not in instance.read_log()
    instance.stop()


def test_three_wrong_passphrases_are_enough(instance, asked):
    terminal = start_on_terminal(instance, asked)
    for number in range(3):
        terminal.expect(b"passphrase for disk", number + 1)
        terminal.answer(b"wrong")
    assert os.waitstatus_to_exitcode(terminal.wait()) == 10
    assert b"v: " in terminal.output
    assert b"0 of 1 volumes open" in terminal.output
    terminal.close()
    instance.stop()


def test_two_questions_are_asked_one_after_the_other(instance, asked):
    image = asked.split()[1]
    second = cryptsetup.luks_format(instance.directory / "second", instance.directory / "key", SIZE)
    terminal = start_on_terminal(
        instance, asked, asked.replace(image, str(second)).replace("v", "w", 1)
    )
    for number in range(2):
        terminal.expect(b"passphrase for disk", number + 1)
        assert terminal.output.count(b"passphrase for disk") == number + 1
        terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0, terminal.output
    terminal.close()
    assert instance.device("v").exists()
    assert instance.device("w").exists()
    instance.stop()


def test_nobody_to_ask_fails_at_once(instance, asked):
    instance.start(asked)
    (entry,) = instance.cli("list", "--json").json["entries"]
    assert entry["state"] == "failed"
    assert "terminal" in entry["error"]
    assert instance.stop() == 0


def test_an_answer_that_does_not_come_in_time_is_a_failure(instance, asked):
    terminal = start_on_terminal(instance, asked + ",timeout=1,tries=1")
    terminal.expect(b"passphrase for disk")
    assert os.waitstatus_to_exitcode(terminal.wait()) == 10
    assert b"in time" in terminal.output
    assert terminal.echoes()
    terminal.close()
    instance.stop()


def test_an_interrupt_at_the_question_ends_everything(instance, asked):
    terminal = start_on_terminal(instance, asked)
    terminal.expect(b"passphrase for disk")
    wait_for(lambda: not terminal.echoes(), "echo off")
    os.write(terminal.fd, b"\x03")
    assert os.waitstatus_to_exitcode(terminal.wait()) != 0
    assert terminal.echoes()
    terminal.close()
    instance.wait_gone()


def test_a_wrong_key_file_makes_it_ask(instance, asked):
    wrong = instance.write_file("wrong", b"not it")
    terminal = start_on_terminal(instance, asked.replace("none", str(wrong)))
    terminal.expect(b"passphrase for disk")
    terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0
    terminal.close()
    instance.stop()


def test_the_end_comes_within_ten_seconds_though_a_volume_is_in_use(instance):
    instance.start(make_plain(instance, "v"))
    script = (
        "import sys, time; f = open(sys.argv[1], 'r+b'); print('open', flush=True); time.sleep(60)"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", script, instance.device("v")], stdout=subprocess.PIPE
    )
    assert user.stdout.readline() == b"open\n"
    start = time.monotonic()
    assert instance.stop() == 0
    assert time.monotonic() - start < 10
    user.kill()
    user.communicate()


def test_sigterm_during_a_key_derivation_ends_it(instance):
    key = instance.write_file("key", b"slow")
    image = cryptsetup.luks_format(
        instance.directory / "image",
        key,
        SIZE,
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "3000000",
    )
    instance.start(f"v {image} {key} luks", wait=False)
    wait_for((instance.runtime_dir / "control").exists, "control socket")
    start = time.monotonic()
    assert instance.stop() == 0
    assert time.monotonic() - start < 10


def test_an_unmount_from_outside_leaves_nothing(instance):
    instance.start(make_plain(instance, "v"))
    (mountpoint,) = mounts_below(instance.directory)
    subprocess.run(["umount", mountpoint], check=True)
    assert instance.wait_daemon() == 0
    instance.wait_gone()
    assert "unmounted from outside" in instance.read_log()


def test_a_second_signal_does_not_cut_the_end_short(instance):
    instance.start(*[make_plain(instance, f"v{number}") for number in range(10)])
    for _ in range(5):
        instance.signal(instance.daemon_pid, signal.SIGTERM)
        instance.signal(instance.daemon_pid, signal.SIGINT)
    assert instance.wait_daemon() == 0
    instance.wait_gone()
    assert instance.read_log().count(": closed") == 10
    assert "Traceback" not in instance.read_log()


def test_a_killed_engine_is_status_1_and_named(instance):
    instance.start(make_plain(instance, "v"))
    instance.signal(instance.engine_pid, signal.SIGKILL)
    assert instance.wait_daemon() == 1
    assert instance.read_log().count("ended unasked, with signal 9") == 1
    instance.wait_gone()


def test_sigterm_to_the_keeper_alone_does_nothing_while_the_daemon_lives(instance):
    instance.start(make_plain(instance, "v"))
    instance.signal(instance.pid("keeper.py"), signal.SIGTERM)
    assert instance.device("v").exists()
    assert instance.stop() == 0


def test_a_keeper_whose_daemon_was_killed_unmounts_on_sigterm(instance):
    instance.start(make_plain(instance, "v"))
    instance.signal(instance.daemon_pid, signal.SIGKILL)
    instance.wait_daemon()
    engine = instance.engine_pid
    for words in (["status"], ["status", "v"], ["close", "v"]):
        told = instance.run(*words)
        assert told.status == 4
        assert f"goes on with its keys (pid {engine})" in told.stderr
    instance.signal(instance.pid("keeper.py"), signal.SIGTERM)
    wait_for(lambda: not mounts_below(instance.directory), "unmounted")
    instance.signal(engine, signal.SIGTERM)
    instance.wait_gone()
    assert "pid" not in instance.run("status").stderr


def test_the_keeper_is_small(instance):
    instance.start(make_plain(instance, "v"))
    with open(f"/proc/{instance.pid('keeper.py')}/status") as file:
        rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert rss < 10240
    assert instance.stop() == 0


def test_an_ordinary_user_gets_all_of_it(user_instance):
    user_instance.start(make_plain(user_instance, "v"))
    script = """if True:
        import os, sys
        fd = os.open(sys.argv[1], os.O_RDWR)
        os.pwrite(fd, b"mine", 12345)
        os.fsync(fd)
        print(os.pread(fd, 4, 12345))"""
    seen = user_instance.io(script, user_instance.device("v"))
    assert seen.stdout == b"b'mine'\n", seen.stderr
    assert user_instance.stop() == 0


def test_a_volume_cannot_lie_in_another_of_the_same_daemon(instance):
    """It would wait for itself, for ever, even when killed."""
    key = instance.write_file("key", b"passphrase")
    instance.start(make_plain(instance, "outer"))
    inner = cryptsetup.luks_format(instance.directory / "inner", key, SIZE)
    with instance.device("outer").open("r+b") as file:
        file.write(inner.read_bytes())
    result = instance.run("open", "--key-file", key, instance.device("outer"), "inner")
    assert result.status == 9, result
    assert "own mount" in result.stderr
    lines = instance.crypttab.read_text()
    instance.crypttab.write_text(f"{lines}inner {instance.device('outer')} {key} luks,noauto\n")
    result = instance.run("open", "inner")
    assert result.status == 9, result
    assert "volume of this daemon" in result.stderr
    instance.cli("close", "outer")
    assert instance.stop() == 0


def test_a_volume_in_a_volume_of_another_daemon(instance, scratch):
    key = instance.write_file("key", b"passphrase")
    instance.start(make_plain(instance, "outer"))
    inner = cryptsetup.luks_format(instance.directory / "inner", key, SIZE)
    with instance.device("outer").open("r+b") as file:
        file.write(inner.read_bytes())
    with running(scratch) as other:
        other.start(f"inner {instance.device('outer')} {key} luks")
        with other.device("inner").open("r+b") as file:
            file.write(b"deep")
            os.fsync(file.fileno())
        assert instance.run("close", "outer").status == 5
        assert other.stop() == 0
    instance.cli("close", "outer")
    assert instance.stop() == 0


def test_the_terminal_is_given_back(instance, asked):
    terminal = start_on_terminal(instance, asked)
    terminal.expect(b"passphrase for disk")
    terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0
    for pid in instance.pids():
        targets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not any("/pts/" in target or "tty" in target for target in targets)
    terminal.close()
    instance.stop()


def test_version(instance):
    result = instance.run_daemon("--version")
    assert result.status == 0
    assert result.stdout.startswith("fusecryptd ")


def test_the_information_is_complete(instance):
    instance.start(make_plain(instance, "v"))
    result = instance.run("status", "--json")
    assert result.status == 0, result
    json.dumps(result.json)
    assert instance.stop() == 0
