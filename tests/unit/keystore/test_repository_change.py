"""Keys of a repository that are changed, and that no crash on the way loses."""

import os
import time
from pathlib import Path

import pytest

from fusecrypt.keystore.errors import BusyError, ConfigError, FormatError, NotFoundError
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.repository import ListChange, Repository
from fusecrypt.keystore.repository_key import Volume
from tests.unit.keystore.samples import REAL_XTS_KEY
from tests.unit.keystore.test_repository import OF_ZKEY, make_info

KEY = SecureKey(REAL_XTS_KEY)
#: The halves the other way round: another key, as well-formed.
OTHER = SecureKey(REAL_XTS_KEY[64:] + REAL_XTS_KEY[:64])
NOON = 1_769_860_800.0
PATTERN = "ab" * 32


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def repository(directory):
    directory.mkdir(mode=0o750)
    directory.chmod(0o750)
    (directory / "k.skey").write_bytes(REAL_XTS_KEY)
    (directory / "k.info").write_text(make_info(*OF_ZKEY, ("of-others", "stays")))
    return Repository(directory, now=lambda: NOON)


def test_a_change_touches_what_was_asked_for_and_the_time(repository, directory):
    changed = repository.change("k", description="new", sector_size=0, pattern="cd" * 32)
    wanted = {**dict(OF_ZKEY), "of-others": "stays", "description": "new", "sector-size": "0",
              "update-time": "2026-01-31 12:00:00"}  # fmt: skip
    assert (directory / "k.info").read_text() == make_info(*wanted.items())
    assert changed == repository.get("k")


def test_a_missing_verification_pattern_is_added(repository, directory):
    (directory / "k.info").write_text(make_info(*OF_ZKEY[:-1]))
    assert repository.change("k", pattern=PATTERN).pattern == PATTERN


def test_volumes_and_adapters_are_added_taken_away_and_replaced(repository):
    change = repository.change
    assert change("k", volumes=ListChange("+", ("/a:b",))).volumes[-1] == "/a:b"
    assert change("k", volumes=ListChange("-", ("/dev/dasdc1:encvol",))).volumes == (
        "/dev/dasdd1:more", "/a:b"
    )  # fmt: skip
    assert change("k", volumes=ListChange("", ())).volumes == ()
    assert change("k", apqns=ListChange("-", ("03.004c",))).apqns == ("04.004c",)
    for kind, item in (("+", "04.004c"), ("-", "03.004c")):
        with pytest.raises(ConfigError, match="there"):
            change("k", apqns=ListChange(kind, (item,)))
    repository.add("l", OTHER, volumes=[Volume("/x", "x")])
    with pytest.raises(BusyError, match="'l'"):
        change("k", volumes=ListChange("+", ("/x:y",)))
    assert change("l", volumes=ListChange("", ("/x:y",))).volumes == ("/x:y",)


def test_dummy_passphrases_come_and_go_with_the_volume_type(repository, directory):
    word = bytearray(b"a\0b\n")
    assert repository.set_passphrase("k", word).passphrase_path == directory / "k.pass"
    assert (directory / "k.pass").read_bytes() == word
    assert (directory / "k.pass").stat().st_mode & 0o777 == 0o640
    with pytest.raises(BusyError, match="has a dummy passphrase"):
        repository.set_passphrase("k", word)
    copy = repository.copy("k", "l")
    assert copy.passphrase_path.read_bytes() == word  # zkey writes the key into it
    assert repository.change("k", volume_type="plain").passphrase_path is None
    with pytest.raises(ConfigError, match="luks2 only"):
        repository.set_passphrase("k", word)
    with pytest.raises(NotFoundError, match="no dummy passphrase"):
        repository.remove_passphrase("k")
    assert repository.remove_passphrase("l").passphrase_path is None


def test_a_rename_takes_everything_along(repository, directory):
    repository.set_passphrase("k", bytearray(b"x"))
    repository.stage_key(repository.get("k"), OTHER)
    before = repository.get("k")
    after = repository.rename("k", "l")
    assert (after.token, after.info, after.is_pending) == (before.token, before.info, True)
    assert {p.name for p in directory.iterdir()} == {
        ".lock", "l.skey", "l.info", "l.renc", "l.pass"
    }  # fmt: skip
    repository.add("k", OTHER)
    with pytest.raises(BusyError, match="'k'"):
        repository.rename("l", "k")
    with pytest.raises(ConfigError, match="key name"):
        repository.rename("l", "../k")


def test_a_copy_has_no_history_and_no_volumes(repository):
    repository.replace_key(repository.get("k"), OTHER)
    copy = repository.copy("k", "l")
    assert copy.token == OTHER.token
    assert (copy.volumes, copy.changed, copy.reenciphered) == ((), "", "")
    assert copy.created == "2026-01-31 12:00:00"
    assert copy.apqns == ("03.004c", "04.004c")
    with pytest.raises(BusyError, match="'k'"):
        repository.copy("k", "m", volumes=[Volume("/dev/dasdc1", "x")])


def test_a_key_of_a_key_management_system_is_copied_as_a_local_one_only(repository, directory):
    info = make_info(*OF_ZKEY, ("kms", "KMIP"), ("kms-key-id", "1"))
    (directory / "k.info").write_text(info)
    with pytest.raises(ConfigError, match="KMIP"):
        repository.copy("k", "l")
    copy = repository.copy("k", "l", is_local=True)
    assert (copy.kms, copy.info.get("kms-key-id")) == ("", "")


def test_a_removed_key_is_gone_and_half_a_key_can_be_removed_by_force(repository, directory):
    repository.stage_key(repository.get("k"), OTHER)
    repository.remove("k")
    assert [p.name for p in directory.iterdir()] == [".lock"]
    (directory / "h.info").write_text("")
    with pytest.raises(FormatError, match="inconsistent"):
        repository.remove("h")
    repository.remove("h", is_forced=True)
    with pytest.raises(NotFoundError):
        repository.remove("h", is_forced=True)


def test_a_key_waits_until_it_is_completed_or_cancelled(repository):
    key = repository.get("k")
    assert repository.stage_key(key, OTHER).is_pending
    assert repository.read_pending("k") == OTHER.token
    assert repository.get("k").token == KEY.token
    with pytest.raises(BusyError, match="waits by now"):
        repository.complete_key(key, KEY)
    done = repository.complete_key(key, OTHER)
    assert (done.token, done.is_pending) == (OTHER.token, False)
    assert done.reenciphered == "2026-01-31 12:00:00"
    with pytest.raises(BusyError, match="changed meanwhile"):
        repository.replace_key(key, OTHER)
    repository.stage_key(done, KEY)
    assert repository.cancel_pending("k")
    assert not repository.cancel_pending("k")
    assert repository.read_pending("k") is None


class CrashError(BaseException):
    """The machine stops here."""


#: Everything by which files change.
_CALLS = ("open", "write", "fsync", "rename", "link", "unlink", "fchmod", "fchown")


def crash_at(monkeypatch, number: int) -> None:
    """Let call ``number``, counted from 0, and all after it not happen."""
    count = 0
    for name in _CALLS:
        real = getattr(os, name)

        def call(*args, _real=real, **kwargs):
            nonlocal count
            count += 1
            if count > number:
                raise CrashError
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)


OPERATIONS = {
    "complete": lambda r: r.complete_key(r.get("k"), OTHER),
    "replace": lambda r: r.replace_key(r.get("k"), OTHER),
    "stage": lambda r: r.stage_key(r.get("k"), OTHER),
    "change": lambda r: r.change("k", description="x"),
    "rename": lambda r: r.rename("k", "l"),
    "copy": lambda r: r.copy("k", "l"),
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_a_crash_at_any_call_loses_no_key(directory, monkeypatch, operation):
    for number in range(200):
        work = directory.parent / f"at-{number}"
        work.mkdir(mode=0o700)
        (work / "k.skey").write_bytes(KEY.token)
        (work / "k.renc").write_bytes(OTHER.token)
        (work / "k.info").write_text(make_info(*OF_ZKEY))
        with monkeypatch.context() as patch:
            crash_at(patch, number)
            try:
                OPERATIONS[operation](Repository(work, now=lambda: NOON))
                is_done = True
            except CrashError:
                is_done = False
        keys = [path.read_bytes() for path in (work / "k.skey", work / "l.skey") if path.exists()]
        assert keys, number
        assert set(keys) <= {KEY.token, OTHER.token}, number
        infos = [path.read_text() for path in (work / "k.info", work / "l.info") if path.exists()]
        assert infos, number
        _check_repairable(work)
        if is_done:
            assert number > 3
            return
    pytest.fail("the operation never ends")


def _check_repairable(work: Path) -> None:
    """One name is whole, and the other one, if half is left of it, can be cleared away."""
    repository = Repository(work)
    whole = []
    for name in ("k", "l"):
        try:
            whole.append(repository.get(name).name)
        except (FormatError, NotFoundError):
            if any(work.glob(f"{name}.*")):
                repository.remove(name, is_forced=True)
    assert whole
    assert [key.name for key in repository.list()] == whole
