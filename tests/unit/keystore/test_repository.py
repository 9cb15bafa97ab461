"""The zkey repository: format, rules, access, and what is said of damaged ones."""

import fcntl
import hashlib
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    FormatError,
    NotFoundError,
)
from fusecrypt.keystore.key_info import KeyInfo
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.repository import Repository
from fusecrypt.keystore.repository_key import Volume
from tests.unit.keystore.samples import REAL_XTS_KEY

KEY = SecureKey(REAL_XTS_KEY)
PATTERN = "ab" * 32
NOON = 1_769_860_800.0


@pytest.fixture
def repository(directory, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    directory.mkdir(mode=0o770)
    directory.chmod(0o770)
    yield Repository(directory, now=lambda: NOON)
    monkeypatch.undo()
    time.tzset()


def make_info(*properties):
    """An .info file as zkey writes one, hashed here."""
    digest = hashlib.sha256("".join(n + v for n, v in properties).encode()).hexdigest()
    return "".join(f"{n}={v}\n" for n, v in (*properties, ("__hash__", digest)))


# What `zkey generate` of s390-tools writes, in its order.
OF_ZKEY = (
    ("cipher", "paes"),
    ("iv-mode", "plain64"),
    ("creation-time", "2024-01-19 10:11:12"),
    ("description", "a key"),
    ("key-type", "CCA-AESDATA"),
    ("volumes", "/dev/dasdc1:encvol,/dev/dasdd1:more"),
    ("apqns", "03.004c,04.004c"),
    ("sector-size", "4096"),
    ("volume-type", "LUKS2"),
    ("verification-pattern", PATTERN),
)


def put(directory, name, *, info=None, key=REAL_XTS_KEY):
    (directory / f"{name}.skey").write_bytes(key)
    (directory / f"{name}.info").write_text(make_info(*OF_ZKEY) if info is None else info)


def test_a_key_of_zkey_is_read(repository, directory):
    put(directory, "seckey")
    key = repository.get("seckey")
    assert key.secure_key == KEY
    assert key.key_type == "CCA-AESDATA"
    assert key.volumes == ("/dev/dasdc1:encvol", "/dev/dasdd1:more")
    assert key.apqns == ("03.004c", "04.004c")
    assert (key.sector_size, key.volume_type) == (4096, "luks2")
    assert (key.description, key.pattern) == ("a key", PATTERN)
    assert (key.created, key.changed, key.reenciphered) == ("2024-01-19 10:11:12", "", "")
    assert not key.is_pending
    assert key.passphrase_path is None
    assert REAL_XTS_KEY[16:48].hex() not in repr(key)
    assert repr(REAL_XTS_KEY)[2:20] not in repr(key)


def test_a_key_that_we_write_is_what_zkey_would_write(repository, directory):
    key = repository.add(
        "seckey",
        KEY,
        pattern=PATTERN,
        description="a key",
        volumes=[Volume.parse("/srv/disk.img:encvol")],
        apqns=[Apqn(3, 0x4C)],
        sector_size=4096,
    )
    wanted = dict(OF_ZKEY) | {
        "creation-time": "2026-01-31 12:00:00",
        "volumes": "/srv/disk.img:encvol",
        "apqns": "03.004c",
    }
    assert (directory / "seckey.info").read_text() == make_info(*wanted.items())
    assert (directory / "seckey.skey").read_bytes() == REAL_XTS_KEY
    assert key == repository.get("seckey")
    assert repository.list() == (key,)


def test_a_key_needs_no_more_than_a_name(repository, directory):
    key = repository.add("k", KEY)
    assert (key.volumes, key.apqns, key.pattern, key.description) == ((), (), "", "")
    assert (key.sector_size, key.volume_type) == (0, "luks2")
    assert "verification-pattern" not in (directory / "k.info").read_text()


def test_keys_are_listed_by_name_and_other_files_are_none(repository, directory):
    for name in ("b", "a.b", "c"):
        put(directory, name)
    (directory / "kms.conf").write_text("")
    (directory / "notes.txt").write_text("")
    assert repository.list_names() == ("a.b", "b", "c")
    assert [key.name for key in repository.list()] == ["a.b", "b", "c"]


def test_older_files_have_neither_volume_type_nor_key_type(repository, directory):
    put(directory, "old", info=make_info(("cipher", "paes"), ("sector-size", "")))
    key = repository.get("old")
    assert (key.volume_type, key.key_type, key.sector_size) == ("plain", "CCA-AESDATA", 0)


def test_comments_and_empty_lines_are_not_hashed(repository, directory):
    put(directory, "k", info="# by hand\n\n" + make_info(*OF_ZKEY))
    assert repository.get("k").description == "a key"


def test_pending_keys_and_passphrases_are_told(repository, directory):
    put(directory, "k")
    (directory / "k.renc").write_bytes(REAL_XTS_KEY)
    (directory / "k.pass").write_bytes(b"x")
    key = repository.get("k")
    assert key.is_pending
    assert key.passphrase_path == directory / "k.pass"


def test_a_key_of_another_kind_is_listed_and_refused_when_used(repository, directory):
    put(directory, "ep11", key=bytes.fromhex("0000000006000000") + bytes(328))
    (key,) = repository.list()
    with pytest.raises(FormatError, match=r"ep11\.skey: .*EP11-AES"):
        _ = key.secure_key


@pytest.mark.parametrize(
    ("info", "reason"),
    [("", "no __hash__"), ("cipher=paes\n", "no __hash__"), ("nonsense\n", "no NAME=VALUE"),
     (make_info(*OF_ZKEY).replace("4096", "512"), "altered"),
     (make_info(*OF_ZKEY).replace("paes", "aes"), "altered"),
     (make_info(*OF_ZKEY[::-1]).replace("iv-mode", "vi-mode"), "altered"),
     (make_info(("a", "b"), ("a", "b")), "second time"),
     (make_info(("a", "b" * 4094)), "at most 4095")],
)  # fmt: skip
def test_an_altered_info_file_is_refused_by_its_name(repository, directory, info, reason):
    put(directory, "k", info=info)
    with pytest.raises(FormatError, match=rf"k\.info: .*{reason}"):
        repository.get("k")


def test_a_key_file_beyond_any_key_is_refused(repository, directory):
    put(directory, "k", key=bytes(1009))
    with pytest.raises(FormatError, match="1008"):
        repository.get("k")


@pytest.mark.parametrize(
    ("suffix", "missing"),
    [(".skey", r"k\.info"), (".info", r"k\.skey"), (".renc", r"k\.skey and no k\.info"),
     (".pass", r"k\.skey and no k\.info")],
)  # fmt: skip
def test_half_a_key_is_told_and_not_overwritten(repository, directory, suffix, missing):
    (directory / f"k{suffix}").write_bytes(b"x")
    for use in (lambda: repository.get("k"), lambda: repository.add("k", KEY)):
        with pytest.raises(FormatError, match=f"inconsistent state.* no {missing}"):
            use()
    assert os.listdir(directory) != []
    assert (directory / f"k{suffix}").read_bytes() == b"x"


def test_a_crash_between_the_two_files_is_told(repository, directory, monkeypatch):
    class Crash(BaseException):
        pass

    real = os.link

    def crash(source, target):
        if str(target).endswith(".info"):
            raise Crash
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.link", crash)
        with pytest.raises(Crash):
            repository.add("k", KEY)
    with pytest.raises(FormatError, match=r"inconsistent state.*no k\.info"):
        repository.get("k")
    (directory / "k.skey").unlink()
    assert repository.add("k", KEY)


def test_a_key_is_not_added_twice(repository):
    repository.add("k", KEY, description="first")
    with pytest.raises(BusyError, match="'k'"):
        repository.add("k", KEY)
    assert repository.get("k").description == "first"


def test_an_unknown_key_is_told_with_its_repository(repository, directory):
    with pytest.raises(NotFoundError, match=rf"'k': not in repository {directory}"):
        repository.get("k")


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "a\\b", "a b", "a*", "a?", "a'", 'a"', ".a", "..", "a\n", "a\0", "\x7f", "a" * 241],
)
def test_a_name_that_no_key_can_have_is_refused(repository, name):
    for use in (lambda: repository.get(name), lambda: repository.add(name, KEY)):
        with pytest.raises(ConfigError, match="key name"):
            use()


@pytest.mark.parametrize("size", [-1, 1, 256, 513, 8192])
def test_a_sector_size_that_dm_crypt_does_not_have_is_refused(repository, size):
    with pytest.raises(ConfigError, match=f"sector size {size}"):
        repository.add("k", KEY, sector_size=size)
    assert repository.list() == ()


def test_other_values_that_a_repository_cannot_hold_are_refused(repository, directory):
    with pytest.raises(ConfigError, match="volume type"):
        repository.add("k", KEY, volume_type="luks1")
    for description in ("a\nb", "a\0b", "\udcff", "x" * 5000):
        with pytest.raises(ConfigError, match="key 'k'"):
            repository.add("k", KEY, description=description)
    assert [path.name for path in directory.iterdir()] == []


@pytest.mark.parametrize(
    ("text", "path", "dm_name"),
    [("/dev/sda1:enc", "/dev/sda1", "enc"), ("disk.img:enc", "disk.img", "enc"),
     ("/dev/disk/by-path/ccw-0.0.1:2:x", "/dev/disk/by-path/ccw-0.0.1:2", "x")],
)  # fmt: skip
def test_a_volume_is_a_path_and_a_name(text, path, dm_name):
    assert Volume.parse(text) == Volume(path, dm_name)
    assert str(Volume.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", ":", "a", "a:", ":b", "/dev/sd*:x", "a?:b", "a,b:c", "a:b/c", "a\nb:c"]
)
def test_what_is_no_volume_is_refused(text):
    with pytest.raises(ConfigError, match="volume"):
        Volume.parse(text)


def test_a_volume_has_one_key(repository):
    first = Volume.parse("/srv/a.img:a")
    repository.add("k", KEY, volumes=[first])
    for volume in (first, Volume.parse("/srv/a.img:other")):
        with pytest.raises(BusyError, match=r"volume /srv/a\.img: key 'k'"):
            repository.add("l", KEY, volumes=[volume])
    repository.add("l", KEY, volumes=[Volume.parse("/srv/b.img:b")])
    with pytest.raises(ConfigError, match="twice"):
        repository.add("m", KEY, volumes=[Volume("c", "1"), Volume("c", "2")])
    assert repository.list_names() == ("k", "l")


def test_a_luks2_volume_may_have_a_key_for_its_integrity_too(repository, directory):
    hmac = (("cipher", "phmac"), ("volumes", "/srv/a.img:a"), ("volume-type", "LUKS2"))
    put(directory, "hmac", info=make_info(*hmac))
    volume = Volume.parse("/srv/a.img:a")
    with pytest.raises(BusyError):
        repository.add("k", KEY, volumes=[volume], volume_type="plain")
    key = repository.add("k", KEY, volumes=[volume])
    assert repository.find_by_volume("/srv/a.img") == key


def test_a_key_is_found_by_its_volume(repository):
    repository.add("other", KEY, volumes=[Volume.parse("/srv/b.img:a")])
    key = repository.add("k", KEY, volumes=[Volume.parse("/srv/x:y.img:a")])
    assert repository.find_by_volume("/srv/x:y.img") == key
    assert repository.find_by_volume("/srv/x:y.img", "a") == key
    assert repository.find_by_volume("/srv/x:y.img", "b") is None
    assert repository.find_by_volume("/srv/c.img") is None


@pytest.mark.parametrize(("mode", "wanted"), [(0o770, 0o660), (0o700, 0o600), (0o775, 0o664)])
def test_files_have_the_mode_of_the_directory_but_for_others(repository, directory, mode, wanted):
    directory.chmod(mode)
    umask = os.umask(0o077)
    try:
        repository.add("k", KEY)
    finally:
        os.umask(umask)
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == wanted, path
    assert {path.name for path in directory.iterdir()} == {".lock", "k.skey", "k.info"}


@pytest.mark.root
def test_files_have_the_group_of_the_directory(repository, directory):
    os.chown(directory, -1, 4321)
    repository.add("k", KEY)
    assert {path.stat().st_gid for path in directory.iterdir()} == {4321}


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_repository_that_others_may_write_to_is_refused(repository, directory, mode):
    directory.chmod(mode)
    for use in (repository.list, lambda: repository.add("k", KEY)):
        with pytest.raises(AccessError, match=f"mode {mode:04o}"):
            use()


def test_a_repository_is_made_for_its_owner_with_the_first_key(tmp_path):
    repository = Repository(tmp_path / "a" / "b")
    for use in (repository.list, repository.list_names, lambda: repository.get("k")):
        with pytest.raises(NotFoundError, match="does not exist"):
            use()
    assert not (tmp_path / "a").exists()
    repository.add("k", KEY)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_is_no_repository(tmp_path):
    (tmp_path / "file").write_text("")
    for use in (Repository(tmp_path / "file").list,):
        with pytest.raises(AccessError, match="no directory"):
            use()


def test_the_lock_of_zkey_is_waited_for(repository, directory):
    """zkey(1): flock on .lock, exclusive, for each command."""
    repository.add("k", KEY)
    fd = os.open(directory / ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    found = []
    thread = threading.Thread(target=lambda: found.append(repository.list_names()))
    thread.start()
    thread.join(0.1)
    assert not found
    os.close(fd)
    thread.join(10)
    assert found == [("k",)]


@given(st.binary(max_size=200))
def test_bytes_are_properties_or_refused(data):
    try:
        info = KeyInfo.parse(data)
    except FormatError:
        return
    assert KeyInfo.parse(info.pack()) == info


TEXT = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.dictionaries(
        TEXT.filter(lambda name: name and "=" not in name and not name.startswith("#")), TEXT
    )
)
def test_properties_come_back(properties):
    properties.pop("__hash__", None)
    info = KeyInfo(tuple(properties.items()))
    assert KeyInfo.parse(info.pack()) == info
    assert info.pack().decode() == make_info(*properties.items())
