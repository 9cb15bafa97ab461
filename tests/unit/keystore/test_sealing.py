"""Adapter files: sealed, bound to their name and host key, and whole after a crash."""

import contextlib
import json
import os
import threading

import pytest

from fusecrypt.keystore import atomic_file
from fusecrypt.keystore.adapter import Adapter, MasterKeys
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.atomic_file import locked, make_file, replace_file
from fusecrypt.keystore.coprocessor import AdapterInfo, Apqn, Fill, Register, RegisterState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    AccessError,
    BusyError,
    CoprocessorError,
    FormatError,
    MapperError,
)
from fusecrypt.keystore.sealing import HostKey
from tests.unit.keystore.samples import FIRST, SECOND, master_key, put_adapter, store_of

PUBLIC = b"public"


def adapter_file(directory):
    return directory / "03.0039.adapter"


def test_host_key_and_adapter_files_are_the_owners_alone(coprocessors, directory):
    umask = os.umask(0)
    coprocessors.create(FIRST)
    os.umask(umask)
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert (directory / "host.key").stat().st_size == 32
    assert {path.name for path in directory.iterdir()} == {
        "host.key", ".lock", "03.0039.adapter",
    }  # fmt: skip


def test_no_master_key_stands_in_any_file(directory):
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(2), new=master_key(3))
    content = b"".join(path.read_bytes() for path in directory.iterdir())
    for first in (1, 2, 3):
        assert bytes(master_key(first)) not in content
        assert master_key(first).hex().encode() not in content


def test_what_is_stored_comes_back_and_is_wiped_after_use(directory):
    info = put_adapter(directory, FIRST, current=master_key(1), old=master_key(2))
    with store_of(directory).opened(FIRST) as adapter:
        assert adapter.info == info
        assert adapter.master_keys.copy(Register.CURRENT) == master_key(1)
        assert adapter.master_keys.copy(Register.OLD) == master_key(2)
        content = adapter.master_keys.content
    assert not any(content)


def test_a_partly_loaded_register_is_kept_without_a_pattern(directory):
    info = put_adapter(directory, FIRST)
    keys = MasterKeys()
    keys.put(Register.NEW, master_key(7))
    state = RegisterState(Fill.PARTIAL)
    fields = {name: getattr(info, name) for name in AdapterInfo.__slots__} | {"new": state}
    store_of(directory).replace(Adapter(AdapterInfo(**fields), "soft", keys))
    with store_of(directory).opened(FIRST) as adapter:
        assert adapter.info.new == state
        assert not adapter.info.new.is_usable
        assert adapter.master_keys.copy(Register.NEW) == master_key(7)


def test_master_keys_print_no_content():
    keys = MasterKeys()
    keys.put(Register.CURRENT, master_key(1))
    assert "01" not in repr(keys).split("object")[0]
    assert "bytearray" not in repr(keys)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_host_key_that_others_can_reach_is_refused(coprocessors, directory, mode):
    coprocessors.create(FIRST)
    (directory / "host.key").chmod(mode)
    with pytest.raises(AccessError, match=rf"host\.key: mode {mode:04o}.*wanted 0600"):
        coprocessors.list_info()
    with pytest.raises(AccessError, match="mode"):
        coprocessors.create(SECOND)


@pytest.mark.root
def test_a_host_key_of_another_user_is_refused(coprocessors, directory):
    coprocessors.create(FIRST)
    os.chown(directory / "host.key", 12345, 12345)
    with pytest.raises(AccessError, match="owned by uid 12345"):
        coprocessors.list_info()


def test_a_host_key_that_is_a_fifo_or_directory_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(AccessError, match="no regular file"):
            HostKey(path).seal(bytearray(8), PUBLIC)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_host_key_of_another_size_is_refused(tmp_path, size):
    make_file(tmp_path / "key", bytes(size))
    with pytest.raises(FormatError, match="32 bytes"):
        HostKey(tmp_path / "key").seal(bytearray(8), PUBLIC)


def test_a_missing_host_key_is_named_and_not_made_again(coprocessors, directory):
    coprocessors.create(FIRST)
    (directory / "host.key").unlink()
    for use in (coprocessors.list_info, lambda: coprocessors.create(SECOND)):
        with pytest.raises(CoprocessorError, match=r"host\.key: missing"):
            use()
    assert not (directory / "host.key").exists()
    assert not (directory / "03.0040.adapter").exists()


def test_the_host_key_may_lie_elsewhere(tmp_path):
    path = tmp_path / "credentials" / "key"
    path.parent.mkdir()
    make_file(path, os.urandom(32), mode=0o400)
    adapters = Coprocessors(tmp_path / "keystore", host_key=path)
    adapters.create(FIRST)
    assert not (tmp_path / "keystore" / "host.key").exists()
    assert adapters.list_info()


def test_another_host_key_is_told_from_an_altered_file(coprocessors, directory):
    coprocessors.create(FIRST)
    host_key = directory / "host.key"
    kept = host_key.read_bytes()
    host_key.write_bytes(os.urandom(32))
    with pytest.raises(FormatError, match=r"03\.0039\.adapter: sealed by host key [0-9a-f]{16}, "):
        coprocessors.list_info()
    host_key.write_bytes(kept)
    assert coprocessors.list_info()


def alterations():
    yield "adapter.online", lambda m: m["adapter"].update(online=False)
    yield "adapter.serial", lambda m: m["adapter"].update(serial="AAAAAAAA")
    yield "adapter.driver", lambda m: m["adapter"].update(driver="other")
    yield "mkvp", lambda m: m["adapter"]["registers"]["current"].update(mkvp="00" * 8)
    yield "state", lambda m: m["adapter"]["registers"]["old"].update(state="valid", mkvp="11" * 8)
    yield "salt", lambda m: m["sealed"].update(salt="00" * 32)
    yield "keys", lambda m: m["sealed"].update(master_keys="00" * 112)
    yield "id", lambda m: m["sealed"].update(host_key="00" * 8)
    yield "version", lambda m: m.update(version=4)
    yield "earlier version", lambda m: m.update(version=1)
    yield "checkstop", lambda m: m["adapter"].update(checkstop=True)
    yield "bad type", lambda m: m["adapter"].update(type="CEX8A")
    yield "format", lambda m: m.update(format="x")
    yield "surplus", lambda m: m.update(more=1)
    yield "surplus inside", lambda m: m["adapter"].update(more=1)
    yield "missing", lambda m: m.pop("sealed")
    yield "type", lambda m: m["adapter"].update(online=1)
    yield "no object", lambda m: m.update(sealed=[])
    yield "short", lambda m: m["sealed"].update(salt="00")
    yield "upper case", lambda m: m["sealed"].update(salt="AA" * 32)
    yield "apqn", lambda m: m["adapter"].update(apqn="3.39")
    yield "other apqn", lambda m: m["adapter"].update(apqn="03.0040")
    yield "bad serial", lambda m: m["adapter"].update(serial="a")
    yield "bad mode", lambda m: m["adapter"].update(mode="ep11")
    yield "state and mkvp", lambda m: m["adapter"]["registers"]["current"].update(mkvp="")
    yield "unknown state", lambda m: m["adapter"]["registers"]["new"].update(state="valid")


@pytest.mark.parametrize("alter", [a for _, a in alterations()], ids=[i for i, _ in alterations()])
def test_an_altered_file_is_refused_by_its_name(coprocessors, directory, alter):
    coprocessors.create(FIRST)
    members = json.loads(adapter_file(directory).read_bytes())
    alter(members)
    adapter_file(directory).write_text(json.dumps(members))
    with pytest.raises(FormatError, match=r"03\.0039\.adapter"):
        coprocessors.list_info()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"1", b"{", b"[" * 10_000, b"\0" * 99])
def test_what_is_no_adapter_file_is_refused(coprocessors, directory, content):
    coprocessors.create(FIRST)
    adapter_file(directory).write_bytes(content)
    with pytest.raises(FormatError, match=r"03\.0039\.adapter"):
        coprocessors.list_info()


def test_every_truncation_is_refused(coprocessors, directory):
    coprocessors.create(FIRST)
    content = adapter_file(directory).read_bytes().rstrip()
    for length in range(0, len(content), 7):
        adapter_file(directory).write_bytes(content[:length])
        with pytest.raises(MapperError):
            coprocessors.list_info()


def test_the_file_of_one_adapter_is_not_the_file_of_another(coprocessors, directory):
    coprocessors.create(FIRST)
    adapter_file(directory).rename(directory / "03.0040.adapter")
    with pytest.raises(FormatError, match=r"03\.0040\.adapter: it is the file of adapter 03\.0039"):
        coprocessors.list_info()


def test_other_files_in_the_directory_are_no_adapters(coprocessors, directory):
    coprocessors.create(FIRST)
    for name in (
        "3.39.adapter",
        "03.0040.adapter.bak",
        ".03.0039.adapter.x.new",
        "AA.0000.adapter",
    ):
        (directory / name).write_bytes(b"x")
    assert [info.apqn for info in coprocessors.list_info()] == [FIRST]


class Crash(BaseException):
    """The power goes."""


CALLS = ["os.fchmod", "os.write", "os.fsync", "os.rename", "os.link"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("is_after", [False, True])
def test_a_crash_leaves_the_old_adapter_or_the_new_one(coprocessors, monkeypatch, call, is_after):
    before = coprocessors.create(FIRST)

    def crash(*arguments, **options):
        if is_after:
            real(*arguments, **options)
        raise Crash

    real = getattr(os, call.removeprefix("os."))
    with monkeypatch.context() as patch:
        patch.setattr(call, crash)
        for change in (
            lambda: coprocessors.change([FIRST], Change.OFFLINE),
            lambda: coprocessors.create(SECOND),
        ):
            with contextlib.suppress(Crash):
                change()
    infos = coprocessors.list_info()
    assert infos[0].current == before.current
    assert [info.apqn for info in infos] in ([FIRST], [FIRST, SECOND])
    coprocessors.change([FIRST], Change.ONLINE)
    assert coprocessors.list_info()[0].is_online


def test_new_content_is_on_disk_before_it_has_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "rename", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(
            f"os.{name}", lambda *a, name=name, real=real: (calls.append(name), real(*a))
        )
    replace_file(tmp_path / "file", b"content")
    assert calls == ["fsync", "rename", "fsync"]
    calls.clear()
    make_file(tmp_path / "other", b"content")
    assert calls == ["fsync", "link", "fsync"]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", fail)
    with pytest.raises(AccessError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_not_made_over_another(tmp_path):
    make_file(tmp_path / "file", b"old")
    with pytest.raises(FileExistsError):
        make_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_keeps_others_out_and_passes_errors_of_its_block_on(tmp_path):
    order = []
    with locked(tmp_path):
        thread = threading.Thread(target=enter, args=(tmp_path, order))
        thread.start()
        order.append(1)
        with pytest.raises(ValueError, match="mine"), locked_elsewhere(tmp_path / "sub"):
            raise ValueError("mine")
    thread.join(10)
    assert order == [1, 2]


def enter(directory, order):
    with locked(directory):
        order.append(2)


def locked_elsewhere(directory):
    directory.mkdir()
    return locked(directory)


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / atomic_file.LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccessError, match="lock file"), locked(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_two_that_make_adapters_at_once_make_each_one_once(directory):
    results = []

    def make(number):
        try:
            results.append(Coprocessors(directory).create(Apqn(number % 3, 0)))
        except BusyError:
            results.append(None)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    made = sorted((info for info in results if info), key=lambda info: info.apqn)
    assert tuple(made) == Coprocessors(directory).list_info()
    assert len(made) == 3
