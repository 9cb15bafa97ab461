"""What `fusecrypt crypttab check` sees of the files that the lines name."""

import os
import socket
from pathlib import Path

import pytest

from fusecrypt.daemon.crypttab import parse_crypttab
from fusecrypt.daemon.crypttab_check import check_files
from fusecrypt.daemon.pkey import SYSFS, TOKEN_KINDS


def check(text: str, directory: Path) -> list[tuple[int, str, str]]:
    table = check_files(parse_crypttab(text, "tab", whole=True), directory / "dev", [directory])
    return [(p.line, p.severity, p.message) for p in table.own_problems]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    return path


def test_a_good_key_file_is_no_problem(key: Path, tmp_path: Path) -> None:
    assert check(f"v /img {key}\n", tmp_path) == []


def test_a_key_file_that_everybody_may_read_is_warned_about(key: Path, tmp_path: Path) -> None:
    key.chmod(0o644)
    ((_, severity, text),) = check(f"v /img {key}\n", tmp_path)
    assert (severity, "everybody may read it" in text) == ("warning", True)
    key.rename(tmp_path / "v.key")  # one that is found by its name
    assert [p[1] for p in check("v /img\n", tmp_path)] == ["warning"]


def test_a_found_key_file_does_not_go_with_a_hash(key: Path, tmp_path: Path) -> None:
    key.rename(tmp_path / "v.key")
    plain = "plain,cipher=aes-xts-plain64,size=512,hash=sha256"
    ((_, severity, text),) = check(f"v /img - {plain}\n", tmp_path)
    assert (severity, "hash=sha256" in text) == ("error", True)


def test_an_absent_key_file_is_only_a_note(tmp_path: Path) -> None:
    ((_, severity, text),) = check(f"v /img {tmp_path}/no\n", tmp_path)
    assert (severity, "no such file" in text) == ("note", True)


def test_a_directory_and_a_socket_are_errors(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = check(f"v /i {tmp_path}/dir\nw /j {tmp_path}/socket\n", tmp_path)
    assert [p[:2] for p in found] == [(1, "error"), (2, "error")]


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert check(f"v /img {tmp_path}/fifo\n", tmp_path) == []


def test_a_key_that_is_made_when_asked_for_need_not_exist(tmp_path: Path) -> None:
    kind = TOKEN_KINDS[0]
    lines = [
        f"v{i} /img{i} {d}/{kind.group}/{kind.name}\n"
        for i, d in enumerate((SYSFS, tmp_path / "dev" / "pkey"))
    ]
    assert check("".join(lines), tmp_path) == []


def test_a_source_on_two_lines_is_warned_about_on_the_second(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "img")
    ((line, severity, text),) = check(f"a {tmp_path}/img\nb {tmp_path}/link\n", tmp_path)
    assert (line, severity, "that of a (tab:1)" in text) == (2, "warning", True)


def test_readers_may_share_a_source_but_not_with_a_writer(tmp_path: Path) -> None:
    readers = "a /img - readonly\nb /img - readonly\n"
    assert check(readers, tmp_path) == []
    found = check(f"{readers}c /img\n", tmp_path)
    assert {p[0] for p in found} == {3}
