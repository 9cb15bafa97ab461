"""New volumes, and what the real cryptsetup makes of them."""

import base64
import hashlib
import os
import random
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.backing import get_size, locked
from fusecrypt.dmcrypt.format_room import TOO_SMALL, Room
from fusecrypt.dmcrypt.luks2.dump import dump_text
from fusecrypt.dmcrypt.luks2.format import FormatParams, format_volume, plan_format
from fusecrypt.dmcrypt.luks2.layout import make_layout
from fusecrypt.dmcrypt.open_volume import open_luks, open_luks_with_key
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.errors import AccessError, ConfigError, UnsupportedError
from tests.lab import cryptsetup as cryptsetup_lab
from tests.lab import sectors
from tests.unit.dmcrypt.headers import read

MIB = 1 << 20
PASSPHRASE = b"a passphrase"
CHEAP = PbkdfParams(type="pbkdf2", iterations=1000)
ARGON2 = {"iterations": 4, "memory_kib": 256, "parallel": 2}

needs_cryptsetup = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup")


def params(**changes):
    return FormatParams(**{"pbkdf": CHEAP, "keyslots_size": 262144} | changes)


def path_of(fd):
    return os.readlink(f"/proc/self/fd/{fd}")


def cryptsetup(*words, stdin=b""):
    return subprocess.run(["cryptsetup", *words], input=stdin, capture_output=True, check=True)


CASES = {
    "defaults but for the KDF": FormatParams(pbkdf=CHEAP),
    "offset": params(keyslots_size=None, offset=1024, sector_size=512),
    "metadata of 64K, keyslot 5": params(metadata_size=65536, key_slot=5),
    "metadata of 4M": params(metadata_size=4 * MIB),
    "aes-cbc-essiv": params(cipher="aes-cbc-essiv:sha256"),
    "aes-cbc-plain, 128 bit": params(cipher="aes-cbc-plain", key_bits=128),
    "aes-xts-plain64be, 256 bit": params(cipher="aes-xts-plain64be", key_bits=256),
    "sectors of 2048": params(sector_size=2048),
    "argon2id": params(pbkdf=PbkdfParams(**ARGON2)),
    "argon2i": params(pbkdf=PbkdfParams(type="argon2i", **ARGON2)),
    "sha512": params(pbkdf=PbkdfParams(type="pbkdf2", hash_name="sha512", iterations=1000)),
    "whirlpool": params(pbkdf=PbkdfParams(type="pbkdf2", hash_name="whirlpool", iterations=1000)),
    "label, subsystem, UUID": params(
        label="x" * 47, subsystem="sub", uuid="01234567-89AB-cdef-0123-456789abcdef"
    ),
}


@needs_cryptsetup
@pytest.mark.parametrize("name", CASES)
def test_cryptsetup_reads_opens_and_dumps_what_we_format(engine, load, open_file, tmp_path, name):
    given = CASES[name]
    fd = open_file(20 * MIB)
    made = format_volume(engine, fd, load(PASSPHRASE), given)
    path = path_of(fd)
    cryptsetup("isLuks", "--type", "luks2", path)
    assert cryptsetup("luksDump", path).stdout.decode() == dump_text(made.header)
    key_file = tmp_path / "key"
    key_file.write_bytes(PASSPHRASE)
    shown = cryptsetup("open", "--test-passphrase", "-v", "--key-file", key_file, path)
    assert f"Key slot {given.key_slot} unlocked" in shown.stdout.decode()
    secret = load(PASSPHRASE)
    opened = open_luks(engine, made.header, fd, secret, data_size=20 * MIB, read_only=False)
    assert (opened.keyslot, opened.cipher) == (given.key_slot, given.cipher)
    assert opened.key_bits == given.key_size * 8


@needs_cryptsetup
@pytest.mark.parametrize(
    "name", ["defaults but for the KDF", "aes-cbc-essiv", "offset", "label, subsystem, UUID"]
)
def test_our_layout_is_what_cryptsetup_chooses(open_file, engine, load, tmp_path, name):
    given = CASES[name]
    words = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--cipher", given.cipher]
    words += ["--offset", str(given.offset)] if given.offset else []
    words += ["--luks2-keyslots-size", str(given.keyslots_size)] if given.keyslots_size else []
    words += ["--sector-size", str(given.sector_size)] if given.sector_size else []
    words += ["--label", given.label, "--subsystem", given.subsystem] if given.label else []
    words += ["--uuid", given.uuid] if given.uuid else []
    key_file = tmp_path / "key"
    key_file.write_bytes(PASSPHRASE)
    ours, theirs = open_file(20 * MIB), open_file(20 * MIB)
    cryptsetup("luksFormat", "-q", "--type", "luks2", *words, path_of(theirs), key_file)
    format_volume(engine, ours, load(PASSPHRASE), given)

    def shape(fd):
        header = read(os.pread(fd, 20 * MIB, 0))
        root = header.root
        for noise in (root["keyslots"]["0"]["kdf"], root["digests"]["0"]):
            noise.pop("salt")
            noise.pop("digest", None)
        return list(root), root, header.label, header.binary.hdr_size, get_size(fd)

    assert shape(ours) == shape(theirs)


@needs_cryptsetup
@pytest.mark.parametrize("name", ["sectors of 2048", "aes-cbc-essiv", "argon2id"])
def test_cryptsetup_deciphers_what_lies_in_our_volume(engine, load, open_file, tmp_path, name):
    # Room enough for the keyslot in which cryptsetup keeps what it moves.
    given = replace(CASES[name], keyslots_size=4 * MIB - 32768)
    wanted = random.Random(1).randbytes(given.key_size)
    key = engine.load_key(open_file(wanted), given.key_size, xts=given.spec.is_xts)
    fd = open_file(5 * MIB)
    made = format_volume(engine, fd, load(PASSPHRASE), given, volume_key=key)
    segment = made.header.metadata.segments[0]
    plaintext = random.Random(2).randbytes(5 * MIB - segment.offset)
    ciphertext = sectors.crypt(
        plaintext, given.cipher, wanted, sector_size=segment.sector_size, encrypt=True
    )
    os.pwrite(fd, ciphertext, segment.offset)
    key_file = tmp_path / "key"
    key_file.write_bytes(PASSPHRASE)
    assert cryptsetup_lab.decrypt(Path(path_of(fd)), key_file) == plaintext


@pytest.mark.parametrize("size", [0, 300000, 2 * MIB])
def test_detached_header_file_grows_and_the_data_keep_every_byte(engine, load, open_file, size):
    content = random.Random(size).randbytes(2 * MIB)
    fd, header_fd = open_file(content), open_file(os.urandom(size))
    made = format_volume(engine, fd, load(PASSPHRASE), params(), header_fd=header_fd)
    assert os.pread(fd, 3 * MIB, 0) == content
    assert made.header.metadata.segments[0].offset == 0
    assert get_size(header_fd) >= made.header.area_size
    secret = load(PASSPHRASE)
    opened = open_luks(engine, made.header, header_fd, secret, data_size=2 * MIB, read_only=False)
    assert opened.table.size == 2 * MIB


def test_small_file_grows_with_a_note_as_with_cryptsetup(engine, load, open_file):
    fd = open_file(MIB)
    made = format_volume(engine, fd, load(PASSPHRASE), FormatParams(pbkdf=CHEAP))
    assert made.notes == (TOO_SMALL,)
    assert get_size(fd) == 16 * MIB


def test_former_contents_of_the_header_areas_are_gone_and_the_data_stay(engine, load, open_file):
    content = b"old!" * (MIB)
    fd = open_file(content)
    made = format_volume(engine, fd, load(PASSPHRASE), params())
    data = os.pread(fd, len(content), 0)
    begin = made.header.metadata.segments[0].offset
    assert b"old!" not in data[:begin]
    assert data[begin:] == content[begin:]
    assert data[made.header.area_size : begin] == bytes(begin - made.header.area_size)
    spare = data[32768 + 258048 : 32768 + 262144]
    assert len(set(spare)) > 100  # random, so that used and unused areas look alike


def test_volume_key_may_be_given(engine, load, open_file):
    wanted = bytes(range(64))
    key = engine.load_key(open_file(wanted), 64, xts=True)
    fd = open_file(2 * MIB)
    made = format_volume(engine, fd, load(PASSPHRASE), params(), volume_key=key)
    digest = made.header.metadata.digests[0]
    expected = hashlib.pbkdf2_hmac("sha256", wanted, base64.b64decode(digest.salt), 1000, 32)
    assert base64.b64decode(digest.digest) == expected
    open_luks_with_key(engine, made.header, key, data_size=2 * MIB, read_only=False)


def test_costs_are_measured_unless_forced(engine, load, open_file):
    pbkdf = PbkdfParams(milliseconds=30, memory_kib=65536, parallel=1)
    made = format_volume(engine, open_file(2 * MIB), load(PASSPHRASE), params(pbkdf=pbkdf))
    kdf = made.header.metadata.keyslots[0].kdf
    assert kdf.type == "argon2id"
    assert kdf.time >= 4
    assert 32 <= kdf.memory <= 65536
    assert made.header.metadata.digests[0].iterations >= 1000


def test_two_volumes_have_nothing_random_in_common(engine, load, open_file):
    headers = [
        format_volume(engine, open_file(2 * MIB), load(PASSPHRASE), params()).header
        for _ in range(2)
    ]
    for value in (
        lambda h: h.uuid,
        lambda h: h.binary.salt,
        lambda h: h.metadata.keyslots[0].kdf.salt,
        lambda h: h.metadata.digests[0].salt,
        lambda h: h.metadata.digests[0].digest,
    ):
        assert value(headers[0]) != value(headers[1])


def test_lock_of_another_process_is_waited_for(engine, load, open_file):
    fd = open_file(2 * MIB)
    other = os.open(path_of(fd), os.O_RDONLY)
    released = threading.Event()
    with locked(other, exclusive=False):
        worker = threading.Thread(
            target=lambda: (format_volume(engine, fd, load(PASSPHRASE), params()), released.set())
        )
        worker.start()
        assert not released.wait(0.3)
        assert os.pread(fd, 32768, 0) == bytes(32768)
    worker.join(20)
    os.close(other)
    assert released.is_set()


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"cipher": "aria-xts-plain64"}, UnsupportedError, "aria"),
        ({"key_bits": 100}, ConfigError, "multiple of 8"),
        ({"key_bits": 128}, ConfigError, "wanted 256, 384, 512"),
        ({"key_slot": 32}, ConfigError, "keyslot 32"),
        ({"label": "x" * 48}, ConfigError, "label"),
        ({"label": "é" * 24}, ConfigError, "label"),
        ({"subsystem": "a\0"}, ConfigError, "subsystem"),
        ({"uuid": "1234"}, ConfigError, "UUID"),
        ({"offset": -8}, ConfigError, "offset"),
    ],
)
def test_parameters_that_cannot_be_are_refused(changes, error, what):
    with pytest.raises(error, match=what):
        params(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"type": "scrypt"}, UnsupportedError, "scrypt"),
        ({"hash_name": "crc32"}, UnsupportedError, "crc32"),
        ({"milliseconds": 0}, ConfigError, "iteration time 0"),
        ({"type": "pbkdf2", "iterations": 999}, ConfigError, "1000"),
        ({"iterations": 3}, ConfigError, "argon2id takes 4"),
        ({"memory_kib": 31}, ConfigError, "memory 31"),
        ({"memory_kib": 4194305}, ConfigError, "memory 4194305"),
        ({"type": "pbkdf2", "memory_kib": 1024}, ConfigError, "neither memory"),
    ],
)
def test_costs_that_cryptsetup_refuses_are_refused(changes, error, what):
    with pytest.raises(error, match=what):
        PbkdfParams(**changes)


def test_more_threads_than_four_are_four_and_none_are_the_default():
    assert [PbkdfParams(parallel=n).lanes for n in (1, 4, 5, 2**32)] == [1, 4, 4, 4]
    assert PbkdfParams(parallel=0).lanes == PbkdfParams().lanes


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"offset": 1025}, "not a multiple of 8"),
        ({"offset": 8}, "too small"),
        ({"offset": 128, "keyslots_size": None}, "keyslots area: 32768 bytes"),
        ({"metadata_size": 20000}, "metadata size 20000"),
        ({"keyslots_size": 262145}, "keyslots size 262145"),
        ({"keyslots_size": 1 << 30}, "keyslots size"),
        ({"keyslots_size": 4096}, "one keyslot for a key of 64 bytes needs 258048"),
        ({"sector_size": 1000}, "sector size 1000"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_a_byte_is_written(
    engine, load, open_file, changes, what
):
    fd = open_file(b"\xaa" * 2 * MIB)
    with pytest.raises(ConfigError, match=what):
        format_volume(engine, fd, load(PASSPHRASE), params(**changes))
    assert os.pread(fd, 3 * MIB, 0) == b"\xaa" * 2 * MIB


def test_data_that_are_no_whole_sectors_choose_512_or_are_refused(open_file):
    fd = open_file(2 * MIB + 512)
    assert plan_format(params(), fd).sector_size == 512
    assert plan_format(params(), open_file(2 * MIB + 4096)).sector_size == 4096
    with pytest.raises(ConfigError, match="not a multiple of the sector size 4096"):
        plan_format(params(sector_size=4096), fd)


def device(size):
    return Room(header_size=size, data_size=size, header_can_grow=False, is_detached=False)


def test_device_that_cannot_grow_gets_a_smaller_keyslots_area_or_is_refused():
    small = make_layout(device(8 * MIB), 64)
    assert small.keyslots_size == 8 * MIB - 32768
    assert small.notes == (TOO_SMALL,)
    with pytest.raises(AccessError, match="too small"):
        make_layout(device(MIB // 2), 64, keyslots_size=MIB)
