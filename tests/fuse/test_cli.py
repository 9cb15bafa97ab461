"""The command line with a daemon: starts it, asks, passes files and keys on, and shows what is."""

import os
import signal
import subprocess

import pytest

from tests.fuse.test_start import PASSPHRASE, Terminal, asked  # noqa: F401 (a fixture)
from tests.fuse.test_tree import SIZE, make_plain
from tests.lab import cryptsetup
from tests.product import command, wait_for

pytestmark = pytest.mark.fuse

PROMPT = b"Enter passphrase for "


@pytest.fixture
def image(instance):
    key = instance.write_file("key", PASSPHRASE)
    return cryptsetup.luks_format(instance.directory / "image", key, SIZE + (512 << 10))


def make_plain_image(instance, name):
    return instance.write_file(name, bytes(SIZE))


def daemons(instance):
    return [words for words in instance.pids().values() if "fusecryptd" in words]


def test_open_prints_the_path_and_starts_the_daemon(instance, image):
    result = instance.cli("open", image, "v", stdin=PASSPHRASE + b"\n")
    assert result.stdout == f"{instance.device('v')}\n"
    assert instance.device("v").stat().st_size == SIZE
    assert len(daemons(instance)) == 1


def test_opens_at_the_same_time_start_one_daemon(instance):
    key = instance.write_file("plain.key", os.urandom(64))
    running = []
    for number in range(4):
        words = [
            *(*command("fusecrypt"), "open", "--type", "plain", "-c", "aes-xts-plain64"),
            *("-s", "512", "-d", key, make_plain_image(instance, f"p{number}"), f"p{number}"),
        ]
        running.append(subprocess.Popen(words, env=instance.environment, stdout=subprocess.PIPE))
    for process in running:
        process.communicate()
    assert [process.returncode for process in running] == [0] * 4
    assert len(daemons(instance)) == 1
    assert len(instance.cli("list", "--json").json["volumes"]) == 4


def test_a_daemon_started_by_open_opens_entries_only_when_asked(instance, image):
    line = make_plain(instance, "entry")
    instance.crypttab.write_text(f"{line}\n")
    instance.cli("open", "--key-file", instance.directory / "key", image, "v")
    assert not instance.device("entry").exists()
    instance.cli("open", "entry")
    assert instance.device("entry").exists()


def test_what_open_makes_of_one_argument(instance, image):
    for word in (image.name, f"./{image.name}"):
        result = instance.run("open", word)
        assert result.status in {1, 4}
        assert "fusecrypt open SOURCE NAME" in result.stderr
    # That started a daemon, which has its crypttab.
    result = instance.run("open", "--crypttab", instance.crypttab, "v")
    assert (result.status, "--crypttab: a daemon runs" in result.stderr) == (1, True)


def test_a_wrong_passphrase_may_be_typed_again(instance, image):
    terminal = Terminal(instance, *command("fusecrypt"), "open", "-T", "2", str(image), "v")
    terminal.expect(PROMPT)
    terminal.answer(b"wrong")
    terminal.expect(PROMPT, 2)
    terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0
    assert b"no key available with this passphrase" in terminal.output
    assert PASSPHRASE not in terminal.output
    terminal.close()
    assert instance.device("v").exists()


def test_a_wrong_passphrase_from_a_pipe_is_tried_once(instance, image):
    result = instance.run("open", image, "v", stdin=b"wrong\nwrong\n")
    assert (result.status, result.stderr.count("no key available")) == (2, 1)


def test_an_interrupt_at_the_prompt_leaves_nothing_open(instance, image):
    terminal = Terminal(instance, *command("fusecrypt"), "open", str(image), "v")
    terminal.expect(PROMPT)
    wait_for(lambda: not terminal.echoes(), "echo off")
    os.kill(terminal.pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(terminal.wait()) == 130
    assert terminal.echoes()
    terminal.close()
    assert instance.cli("list", "--json").json["volumes"] == []
    instance.cli("open", image, "v", stdin=PASSPHRASE)


def test_an_entry_without_key_file_asks_the_one_who_opens_it(instance, asked):  # noqa: F811
    instance.crypttab.write_text(f"{asked}\n")
    terminal = Terminal(instance, *command("fusecrypt"), "open", "v")
    terminal.expect(b"(v): ")
    terminal.answer(PASSPHRASE)
    assert terminal.wait() == 0
    terminal.close()
    assert instance.device("v").exists()


def test_key_files_that_cannot_be_handed_on_are_read_here(instance, image):
    script = f"exec {' '.join(command('fusecrypt'))} open --key-file <(cat key) {image} v"
    subprocess.run(
        ["bash", "-c", script],
        env=instance.environment,
        cwd=instance.directory,
        check=True,
        capture_output=True,
    )
    assert instance.device("v").exists()


def test_a_random_key_file_opens_a_plain_volume(instance):
    image = make_plain_image(instance, "swap.img")
    options = ("--type", "plain", "-c", "aes-cbc-essiv:sha256", "-s", "256", "-d", "/dev/urandom")
    instance.cli("open", *options, image, "v")
    first = instance.device("v").read_bytes()[:4096]
    instance.cli("close", "v")
    instance.cli("open", *options, image, "v")
    assert instance.device("v").read_bytes()[:4096] != first


def test_a_volume_key_opens_its_volume(instance, image):
    key = instance.write_file("vk", cryptsetup.volume_key(image, "-d", instance.directory / "key"))
    instance.cli("open", "--volume-key-file", key, image, "v")
    other = instance.write_file("other", os.urandom(key.stat().st_size))
    instance.cli("close", "v")
    assert instance.run("open", "--volume-key-file", other, image, "v").status == 2


def test_plain_options_reach_the_volume(instance):
    key = instance.write_file("plain.key", os.urandom(64))
    image = make_plain_image(instance, "p")
    instance.cli(
        *("open", "--type", "plain", "-c", "aes-xts-plain64", "-s", 512, "-d", key),
        *("--offset", 16, "--skip", 8, "--device-size", "1M", "--sector-size", 4096),
        *("--iv-large-sectors", "--readonly", image, "v"),
    )
    volume = instance.cli("status", "--json", "v").json
    shown = {name: volume[name] for name in ("offset", "iv_offset", "size", "sector_size")}
    assert shown == {"offset": 16, "iv_offset": 8, "size": 1 << 20, "sector_size": 4096}
    assert (volume["type"], volume["read_only"], volume["key_bits"]) == ("PLAIN", True, 512)
    text = instance.cli("status", "v").stdout
    for line in (
        f"{instance.device('v')} is active.",
        "  type:    PLAIN",
        "  cipher:  aes-xts-plain64",
        "  keysize: 512 [bits]",
        f"  device:  {image}",
        "  sector size:  4096 [bytes]",
        "  offset:  16 [512-byte units] (8192 [bytes])",
        "  size:    2048 [512-byte units] (1048576 [bytes])",
        "  skipped: 8 [512-byte units] (4096 [bytes])",
        "  mode:    readonly",
    ):
        assert line in text.splitlines()


def test_a_volume_in_use_is_said_to_be(instance, image):
    instance.cli("open", image, "v", stdin=PASSPHRASE)
    with instance.device("v").open("rb"):
        assert " is active and is in use." in instance.cli("status", "v").stdout
        assert instance.run("close", "v").status == 5
    wait_for(lambda: " is active." in instance.cli("status", "v").stdout, "the release")
    instance.cli("close", instance.device("v"))  # cryptsetup takes the path too


def test_names_and_files_in_use_are_refused_before_anything_is_asked(instance, image):
    instance.cli("open", image, "v", stdin=PASSPHRASE)
    result = instance.run("open", image, "v")
    assert (result.status, "v: is open already" in result.stderr) == (5, True)
    assert instance.run("open", image, "w", stdin=PASSPHRASE).status == 5
    result = instance.run("luksFormat", "-q", image, stdin=b"x")
    assert (result.status, "is open already" in result.stderr) == (5, True)


def test_a_daemon_that_cannot_start_says_why(instance, image):
    instance.crypttab.unlink()
    result = instance.run("open", image, "v", stdin=PASSPHRASE)
    assert (result.status, result.stderr.count("\n")) == (4, 1)
    assert "cannot start fusecryptd: " in result.stderr
    assert "no such file" in result.stderr


def test_tries_of_the_line_count_when_it_is_opened_by_name(instance, asked):  # noqa: F811
    instance.crypttab.write_text(f"{asked},tries=1\n")
    terminal = Terminal(instance, *command("fusecrypt"), "open", "v")
    terminal.expect(b"(v): ")
    terminal.answer(b"wrong")
    assert os.waitstatus_to_exitcode(terminal.wait()) == 2
    terminal.close()


def test_a_headless_line_asks_nobody(instance, asked):  # noqa: F811
    instance.crypttab.write_text(f"{asked},headless\n")
    result = instance.run("open", "v", stdin=PASSPHRASE)
    assert (result.status, "headless" in result.stderr) == (2, True)
    instance.cli("open", "--key-file", instance.directory / "key", "v")


def test_a_line_added_after_the_start_is_found(instance):
    instance.start()
    line = make_plain(instance, "late")
    assert instance.run("open", "late").status == 4
    instance.crypttab.write_text(f"{line}\n")
    instance.cli("open", "late")
    states = instance.cli("list", "--json").json["entries"]
    assert states == [{"name": "late", "state": "open", "error": None}]
