"""Every option and action that the real cryptsetup prints is taken here, or refused by name."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fusecrypt.daemon.cli.arguments import parse_arguments
from fusecrypt.daemon.cli.commands import COMMANDS, run
from fusecrypt.daemon.cli.options import ALIASES, CRYPTSETUP, OPTIONS, Kind
from fusecrypt.daemon.cli.output import Output
from fusecrypt.daemon.cli.refused_options import REFUSED, REFUSED_ACTIONS
from fusecrypt.keystore.errors import UnsupportedError

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

#: A line of an option: its letter, its name, and its value's name if it takes one.
OPTION = re.compile(r"^\s+(?:-(\S), | {4})\s*--([a-z0-9_-]+)(=\S+)?", re.MULTILINE)
ACTION = re.compile(r"^\t(\w+) (?:\[--cipher|<)", re.MULTILINE)
OLD_ACTION = re.compile(r"^\t(?:open|close): (.*)$", re.MULTILINE)


def read_help() -> str:
    return subprocess.run(
        ["cryptsetup", "--help"], capture_output=True, check=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def text() -> str:
    return read_help()


def test_every_option_is_taken_or_refused_by_name_with_the_same_letter_and_value(text: str) -> None:
    found = OPTION.findall(text)
    assert len(found) > 90
    for letter, name, value in found:
        if name in REFUSED:
            words = [[f"--{name}"], [f"--{name}=1"], *([[f"-{letter}"]] if letter else [])]
            for word in words:
                with pytest.raises(UnsupportedError, match=r"not supported: .{20}"):
                    parse_arguments(["open", *word])
            continue
        full = ALIASES.get(name, name)
        assert full in OPTIONS, name
        assert (OPTIONS[full].kind is Kind.VALUE) == bool(value), name
        assert not letter or CRYPTSETUP.short_names[letter] == full


def test_every_action_is_there_or_refused_by_name(text: str) -> None:
    actions = ACTION.findall(text)
    for line in OLD_ACTION.findall(text):
        actions += re.findall(r"\w+", line)
    assert {"open", "luksFormat", "tcryptDump", "create", "fvault2Close", "token"} <= set(actions)
    for action in actions:
        words = parse_arguments([action, "--test-args", *_positionals(action)])
        if action in REFUSED_ACTIONS:
            with pytest.raises(UnsupportedError, match=f"{action}: not supported: .{{20}}"):
                run(words, Output())
        else:
            assert run(words, Output()) == 0


MANUAL = Path("/usr/share/man/man8")


def list_manual() -> list[tuple[str, list[str]]]:
    """Of each action that has a page the options that it is said to take."""
    found = []
    for page in sorted(MANUAL.glob("cryptsetup-*.8.gz")):
        action = page.name.removeprefix("cryptsetup-").removesuffix(".8.gz")
        text = gzip.decompress(page.read_bytes()).decode().replace("\\", "")
        lists = re.findall(
            r"<options> can be \[([^\]]*)\]", text.replace("fB", "").replace("fP", "")
        )
        options = re.findall(r"--([a-z0-9_-]+)", " ".join(lists))
        if action in COMMANDS and options:
            found.append((action, options))
    return found


@pytest.mark.skipif(not list_manual(), reason="no manual pages of cryptsetup")
def test_every_action_takes_what_its_manual_page_lists() -> None:
    pages = list_manual()
    assert len(pages) > 15
    for action, options in pages:
        for name in options:
            full = ALIASES.get(name, name)
            taken = COMMANDS[action].all_options | ({"refresh"} if action == "open" else set())
            assert full in taken or name in REFUSED, (action, name)


def _positionals(action: str) -> list[str]:
    return {
        "benchmark": [],
        "luksKillSlot": ["IMAGE", "1"],
        "token": ["export", "IMAGE"],
        "open": ["IMAGE", "name"],
        "create": ["name", "IMAGE"],
    }.get(action, ["IMAGE", "name"] if action.endswith("Open") else ["IMAGE"])
