"""The audit log: what was done to it is found, what a crash did is told apart."""

import contextlib
import hashlib
import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.keystore import audit
from fusecrypt.keystore.audit import AuditLog, Chain, Entry, list_files, read_log, survey_log
from fusecrypt.keystore.errors import AccessError, FormatError, MapperError, NotFoundError

FACTS = {"apqn": "03.0039", "mkvp": "491176b0f443c65a", "pattern": "ab" * 32}


def write(log, count=1, **changes):
    for i in range(count):
        values = {"uid": 1000, "pid": 7, "method": f"M{i}", "result": "ok", "facts": FACTS}
        log.append(**{**values, **changes})


def read(directory):
    chain = Chain()
    return list(read_log(list_files(directory), chain)), chain


@pytest.fixture
def log(directory):
    return AuditLog(directory, lambda: 1_769_860_800.25)


def test_what_is_written_comes_back_in_order(log, directory):
    write(log, 3)
    entries, chain = read(directory)
    assert [entry.method for entry in entries] == ["M0", "M1", "M2"]
    assert entries[0] == Entry(1, "2026-01-31T12:00:00.250Z", 1000, 7, "M0", "ok", FACTS)
    assert (chain.entries, chain.first, chain.last, chain.torn) == (3, 1, 3, 0)
    (path,) = list_files(directory)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_chain_is_one_by_an_independent_computation(log, directory):
    write(log, 3)
    prev = "00" * 32
    for line in list_files(directory)[0].read_text().splitlines():
        members = json.loads(line)
        assert members.pop("prev") == prev
        prev = members.pop("hash")
        text = json.dumps(
            {**members, "prev": json.loads(line)["prev"]}, sort_keys=True, separators=(",", ":")
        )
        assert hashlib.sha256(text.encode()).hexdigest() == prev
    assert read(directory)[1].head.hex() == prev


def test_another_process_and_a_restart_go_on_where_the_last_one_was(log, directory):
    other = AuditLog(directory)
    for _ in range(3):
        write(log)
        write(other)
    write(AuditLog(directory))
    assert read(directory)[1].last == 7


def test_two_that_write_at_once_make_one_chain(directory):
    logs = [AuditLog(directory) for _ in range(4)]
    threads = [threading.Thread(target=write, args=(log, 10)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert read(directory)[1].entries == 40


def alter(index, old, new):
    def change(lines):
        assert old in lines[index]
        lines[index] = lines[index].replace(old, new)

    return change


def alterations():
    yield "a word", alter(1, b'"M1"', b'"M9"')
    yield "a uid", alter(1, b"1000", b"1001")
    yield "a result", alter(2, b'"ok"', b'"no"')
    yield "spacing", alter(1, b'"uid":', b'"uid": ')
    yield "a member more", alter(1, b'{"', b'{"a":1,"')
    yield "taken out", lambda lines: lines.pop(1)
    yield "taken out at the front", lambda lines: lines.pop(0)
    yield "put in twice", lambda lines: lines.insert(1, lines[0])
    yield "swapped", lambda lines: lines.insert(0, lines.pop(1))
    yield "emptied", lambda lines: lines.__setitem__(1, b"")
    yield "zeros", lambda lines: lines.__setitem__(1, bytes(50))
    yield "text", lambda lines: lines.insert(2, b"hello")


@pytest.mark.parametrize("change", [c for _, c in alterations()], ids=[i for i, _ in alterations()])
def test_every_alteration_is_found(log, directory, change):
    write(log, 4)
    (path,) = list_files(directory)
    lines = path.read_bytes().splitlines()
    kept = lines[0]
    change(lines)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    if kept not in lines:  # the log may have dropped files, so that it may begin anywhere
        assert read(directory)[1].first == 2
        return
    with pytest.raises(FormatError, match=r"audit\.0+1\.log:\d: "):
        read(directory)


def test_a_line_made_anew_does_not_fit_the_next(log, directory):
    write(log, 3)
    (path,) = list_files(directory)
    lines = path.read_bytes().splitlines(keepends=True)
    entry, prev, _ = Entry.parse(lines[1], "test")
    forged = Entry(entry.seq, entry.time, 0, entry.pid, entry.method, entry.result, entry.facts)
    lines[1] = forged.pack(prev)[0]
    path.write_bytes(b"".join(lines))
    with pytest.raises(FormatError, match=r":3: line 3 does not follow line 2"):
        read(directory)


def test_lines_cut_off_at_the_end_are_found_by_an_earlier_head(log, directory):
    write(log, 3)
    chain = read(directory)[1]
    (path,) = list_files(directory)
    write(log)
    later = read(directory)[1]
    later.check_head(chain.last, chain.head)
    with pytest.raises(FormatError, match="line 3 has hash"):
        later.check_head(3, bytes(32))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(NotFoundError, match="line 3 is not there; it has lines 1 to 2"):
        read(directory)[1].check_head(chain.last, chain.head)


def test_a_line_that_a_crash_cut_short_is_told_and_the_log_goes_on(log, directory):
    write(log, 2)
    (path,) = list_files(directory)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first + 1, len(content), 37):
        path.write_bytes(content[:length])
        entries, chain = read(directory)
        assert (len(entries), chain.torn) == (1, length - first)
        write(AuditLog(directory), method="next")
        entries, chain = read(directory)
        assert [entry.method for entry in entries] == ["M0", "recover", "next"]
        assert entries[1].facts == {"torn_bytes": str(length - first)}
        assert chain.torn == 0


def test_a_log_whose_end_was_altered_is_not_written_to(log, directory):
    write(log, 2)
    (path,) = list_files(directory)
    path.write_bytes(path.read_bytes().replace(b"1000", b"1001"))
    write(log)  # it knows the hash that is right, so that the next line shows the one that is not
    with pytest.raises(FormatError, match=r":1: altered"):
        read(directory)
    before = path.read_bytes()
    with pytest.raises(FormatError, match="altered"):
        write(AuditLog(directory))
    assert path.read_bytes() == before


def test_files_are_bounded_and_the_chain_goes_through_them(log, directory, monkeypatch):
    monkeypatch.setattr(audit, "FILE_SIZE", 1000)
    monkeypatch.setattr(audit, "FILES_MAX", 3)
    write(log, 20)
    files = list_files(directory)
    assert len(files) == 3
    assert all(path.stat().st_size <= 1000 for path in files)
    entries, chain = read(directory)
    assert chain.last == 20
    assert entries[0].seq == chain.first > 1
    write(AuditLog(directory))
    assert read(directory)[1].last == 21
    files = list_files(directory)
    files[1].unlink()
    with pytest.raises(FormatError, match="does not follow"):
        read(directory)
    files[0].write_bytes(files[0].read_bytes()[:-5])
    with pytest.raises(FormatError, match="ends within a line, and is not the last file"):
        read(directory)


class Crash(BaseException):
    """The power goes."""


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close"])
@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_loses_no_line_that_was_answered(directory, monkeypatch, call, is_after, nth):
    monkeypatch.setattr(audit, "FILE_SIZE", 700)  # two lines
    log, answered, calls = AuditLog(directory), [], []
    real = getattr(os, call)

    def crash(*arguments, **options):
        calls.append(call)
        if len(calls) == nth:
            if is_after:
                real(*arguments, **options)
            raise Crash
        return real(*arguments, **options)

    for method in ("A", "B", "C"):
        calls.clear()
        with monkeypatch.context() as patch, contextlib.suppress(Crash):
            patch.setattr(f"os.{call}", crash)
            write(log, method=method)
            answered.append(method)
        log = AuditLog(directory)
    write(log, method="D")
    methods = [entry.method for entry in read(directory)[0]]
    assert [m for m in methods if m in answered] == answered
    assert methods == sorted(methods)  # each at most once, and in order
    assert methods[-1] == "D"


def test_a_full_disk_is_told_and_leaves_a_log_that_goes_on(log, directory, monkeypatch):
    write(log)

    def write_less(fd, data):
        return real(fd, data[:20])

    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", write_less)
        with pytest.raises(AccessError, match="no space"):
            write(log)
    write(log, method="later")
    assert [e.method for e in read(directory)[0]] == ["M0", "recover", "later"]


def test_a_line_is_on_the_disk_before_the_answer(log, directory, monkeypatch):
    calls = []
    for name in ("write", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            f"os.{name}", lambda *a, name=name, real=real: (calls.append(name), real(*a))[1]
        )
    write(log)
    write(log)
    assert calls == ["write", "fsync", "fsync", "write", "fsync"]  # the first: of the directory
    assert directory.exists()


@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_line_or_an_error(data):
    with contextlib.suppress(MapperError):
        Chain().add(data, "test")


def test_a_survey_shows_what_is_readable_and_tells_each_fault_once(log, directory):
    write(log, 6)
    (path,) = list_files(directory)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"ok"', b'"no"')  # altered
    del lines[3]  # taken out
    path.write_bytes(b"".join(lines))
    seen = list(survey_log([path]))
    assert [entry.seq if entry else None for entry, _ in seen] == [1, None, 3, 5, 6]
    assert [bool(problem) for _, problem in seen] == [False, True, False, True, False]
    assert "altered" in seen[1][1]
    assert "line 5 does not follow line 3" in seen[3][1]
