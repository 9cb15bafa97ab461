import fcntl
import os
from dataclasses import replace

import pytest

from fusecrypt.dmcrypt import backing
from fusecrypt.dmcrypt.luks2 import update
from fusecrypt.keystore.errors import BusyError, FormatError, UnsupportedError
from tests.golden import corpus
from tests.unit.dmcrypt.headers import BASE, edited, read

GOOD = corpus.get_image(BASE).data


@pytest.fixture
def open_image(tmp_path):
    fds = []

    def open_it(data):
        path = tmp_path / f"image{len(fds)}"
        path.write_bytes(data)
        fds.append(os.open(path, os.O_RDWR))
        return path, fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("case", corpus.derived(), ids=lambda case: case.name)
def test_repair_mends_what_cryptsetup_mends_and_touches_nothing_else(open_image, case):
    data = case.data
    path, fd = open_image(data)
    if case.name.startswith("derived-l1") or case.real["luksDump"]:
        with pytest.raises((FormatError, UnsupportedError)):
            update.repair_header(fd)
        assert path.read_bytes() == data
        return
    before = read(data)
    header = update.repair_header(fd)
    assert not header.is_damaged
    assert header.metadata == before.metadata
    assert header.binary.seqid == before.binary.seqid
    after = path.read_bytes()
    assert after[0x8000:] == data[0x8000:]
    if not before.is_damaged:
        assert after == data
    good = slice(0, 0x4000) if before.used == "primary" else slice(0x4000, 0x8000)
    assert after[good] == data[good]


def test_repair_is_refused_under_an_unknown_requirement(open_image):
    data = edited(lambda root: root["config"].update(requirements={"mandatory": ["foo"]}))
    damaged = bytes(4096) + data[4096:]
    path, fd = open_image(damaged)
    with pytest.raises(UnsupportedError, match="foo"):
        update.repair_header(fd)
    assert path.read_bytes() == damaged


def test_repair_waits_for_the_lock(open_image, monkeypatch):
    path, fd = open_image(bytes(4096) + GOOD[4096:])
    monkeypatch.setattr(
        update,
        "locked",
        lambda fd, *, exclusive: backing.locked(fd, exclusive=exclusive, timeout=0.1),
    )
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(BusyError):
            update.repair_header(fd)


def record_writes(monkeypatch):
    steps = []
    monkeypatch.setattr(
        update, "pwrite", lambda _fd, data, offset: steps.append((offset, bytes(data)))
    )
    monkeypatch.setattr(update, "sync", lambda _fd: steps.append(None))
    return steps


def test_crash_at_any_write_leaves_the_old_or_the_new_header(monkeypatch):
    """Every prefix of the writes, the last one torn, any that were not synced dropped."""
    old = read(GOOD)
    new_root = old.root | {"tokens": {"0": {"type": "x", "keyslots": []}}}
    new = replace(old.binary, seqid=old.binary.seqid + 1)
    steps = record_writes(monkeypatch)
    update.write_header(-1, new, new_root)
    assert [step if step is None else step[0] for step in steps] == [
        0,
        4096,
        0,
        None,
        0x4000,
        0x5000,
        0x4000,
        None,
    ]
    seqids = set()
    durable = bytearray(GOOD)
    pending: list[tuple[int, bytes]] = []
    for step in steps:
        if step is None:
            for offset, data in pending:
                durable[offset : offset + len(data)] = data
            pending = []
            continue
        pending.append(step)
        for choice in range(1 << len(pending)):
            image = bytearray(durable)
            for number, (offset, data) in enumerate(pending):
                if choice >> number & 1:
                    image[offset : offset + len(data)] = data
            last_offset, last = pending[-1]
            for cut in {0, 512, 4096, len(last) // 2, len(last)}:
                torn = bytearray(image)
                torn[last_offset : last_offset + cut] = last[:cut]
                header = read(bytes(torn))
                assert header.root in (old.root, new_root)
                seqids.add(header.binary.seqid)
    assert seqids == {old.binary.seqid, new.seqid}
    assert read(bytes(durable)).notes == ()


def test_copies_have_salts_of_their_own(open_image):
    _, fd = open_image(GOOD)
    header = read(GOOD)
    update.write_header(fd, replace(header.binary, seqid=9), header.root)
    data = backing.pread_from(fd)(0, 0x8000)
    salts = {data[104:168], data[0x4000 + 104 : 0x4000 + 168], GOOD[104:168]}
    assert len(salts) == 3


def test_object_too_large_for_its_area_is_refused_before_a_byte_is_written(open_image):
    path, fd = open_image(GOOD)
    header = read(GOOD)
    with pytest.raises(FormatError, match="wanted less than 12288"):
        update.write_header(fd, header.binary, header.root | {"x": "y" * 13000})
    assert path.read_bytes() == GOOD
