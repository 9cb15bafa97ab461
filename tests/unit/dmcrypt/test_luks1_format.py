"""New LUKS1 volumes, and what the real cryptsetup makes of them."""

import hashlib
import os
import random
import shutil
import subprocess
from dataclasses import replace

import pytest

from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.format_room import TOO_SMALL, Room
from fusecrypt.dmcrypt.luks1 import read_header
from fusecrypt.dmcrypt.luks1.dump import dump_text
from fusecrypt.dmcrypt.luks1.format import FormatParams, format_volume, plan_format
from fusecrypt.dmcrypt.luks1.layout import make_layout
from fusecrypt.dmcrypt.open_volume import open_luks, open_luks_with_key
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.errors import AccessError, ConfigError, UnsupportedError

MIB = 1 << 20
SIZE = 5 * MIB
PASSPHRASE = b"a passphrase"
CHEAP = PbkdfParams(type="pbkdf2", iterations=1000)

needs_cryptsetup = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup")


def params(**changes):
    return FormatParams(**{"pbkdf": CHEAP} | changes)


def hashed(name):
    return replace(CHEAP, hash_name=name)


def path_of(fd):
    return os.readlink(f"/proc/self/fd/{fd}")


def cryptsetup(*words):
    return subprocess.run(["cryptsetup", *words], capture_output=True, check=True).stdout.decode()


def options(given):
    """What gives cryptsetup the same parameters."""
    words = ["--cipher", given.cipher, "--hash", given.pbkdf.hash_name]
    words += ["--pbkdf-force-iterations", "1000", "--key-slot", str(given.key_slot)]
    words += ["--key-size", str(given.key_bits)] if given.key_bits else []
    words += ["--offset", str(given.offset)] if given.offset else []
    words += ["--align-payload", str(given.alignment)] if given.alignment else []
    words += ["--uuid", given.uuid] if given.uuid else []
    return words


#: Every cipher, key size, hash, alignment and offset once, not all with all.
CASES = {
    "defaults but for the KDF": params(),
    "sha1": params(pbkdf=hashed("sha1")),
    "sha224, cbc": params(cipher="aes-cbc-essiv:sha256", pbkdf=hashed("sha224")),
    "sha384, 256 bit": params(key_bits=256, pbkdf=hashed("sha384")),
    "sha512": params(pbkdf=hashed("sha512")),
    "sha3-256, plain, 128 bit": params(
        cipher="aes-cbc-plain", key_bits=128, pbkdf=hashed("sha3-256")
    ),
    "sha3-512": params(pbkdf=hashed("sha3-512")),
    "ripemd160, 192 bit": params(cipher="aes-cbc-plain64", key_bits=192, pbkdf=hashed("ripemd160")),
    "whirlpool, keyslot 7": params(pbkdf=hashed("whirlpool"), key_slot=7),
    "sm3": params(pbkdf=hashed("sm3")),
    "blake2b-512": params(pbkdf=hashed("blake2b-512")),
    "blake2s-256": params(pbkdf=hashed("blake2s-256")),
    "plain, UUID": params(cipher="aes-xts-plain", uuid="01234567-89AB-cdef-0123-456789abcdef"),
    "aligned to 8192": params(alignment=8192),
    "aligned to 1": params(alignment=1),
    "aligned to 4040, 256 bit": params(key_bits=256, alignment=4040),
    "at 4040": params(offset=4040),
    "at 8192": params(offset=8192),
}


@needs_cryptsetup
@pytest.mark.parametrize("is_detached", [False, True], ids=["", "detached"])
@pytest.mark.parametrize("name", CASES)
def test_cryptsetup_opens_what_we_format_and_lays_it_out_alike(
    engine, load, open_file, tmp_path, name, is_detached
):
    given = CASES[name]
    if is_detached and given.alignment:
        # There cryptsetup takes it for the place of the data, and wants a multiple of 4096 bytes.
        given = replace(given, alignment=given.alignment & ~7 or 8192)
    fd = open_file(SIZE)
    header_fd = open_file(0) if is_detached else None
    made = format_volume(engine, fd, load(PASSPHRASE), given, header_fd=header_fd)
    path = path_of(fd if header_fd is None else header_fd)
    assert cryptsetup("luksDump", path) == dump_text(made, path)
    key_file = tmp_path / "key"
    key_file.write_bytes(PASSPHRASE)
    test = ("open", "--test-passphrase", "-v", "--key-file", key_file, path)
    assert f"Key slot {given.key_slot} unlocked" in cryptsetup(*test)
    theirs = path_of(open_file(SIZE))
    other = tmp_path / "header"
    where = ["--header", other] if is_detached else []
    cryptsetup("luksFormat", "-q", "--type", "luks1", *options(given), *where, theirs, key_file)
    with open(other if is_detached else theirs, "rb") as file:
        header = read_header(pread_from(file.fileno()), get_size(file.fileno()))
        size = get_size(file.fileno())
    assert shape(made) == shape(header)
    if not made.payload_offset or not is_detached:
        # Else cryptsetup makes the header's file as long as what precedes the data elsewhere.
        assert get_size(fd if header_fd is None else header_fd) == size
    # and what cryptsetup has made, we open
    secret = load(PASSPHRASE)
    with open(other if is_detached else theirs, "rb") as file:
        opened = open_luks(
            engine, header, file.fileno(), secret, data_size=2 * SIZE, read_only=True
        )
    assert opened.keyslot == given.key_slot


def shape(header):
    """All that is neither random nor measured."""
    slots = tuple(replace(s, salt=b"") for s in header.keyslots)
    uuid = header.uuid if header.uuid.startswith("01234567") else ""
    return replace(header, digest=b"", digest_salt=b"", uuid=uuid, keyslots=slots)


@needs_cryptsetup
def test_a_device_too_small_for_data_is_formatted_with_a_note(engine, load, open_file, tmp_path):
    fd = open_file(MIB)
    assert plan_format(params(), fd).notes == (TOO_SMALL,)
    made = format_volume(engine, fd, load(PASSPHRASE), params())
    key_file = tmp_path / "key"
    key_file.write_bytes(PASSPHRASE)
    theirs = path_of(open_file(MIB))
    cryptsetup("luksFormat", "-q", "--type", "luks1", *options(params()), theirs, key_file)
    assert get_size(fd) == os.stat(theirs).st_size
    assert made.payload_offset == 2 * MIB


def test_a_device_that_cannot_grow_is_refused():
    small, large = (
        Room(header_size=size, data_size=size, header_can_grow=False, is_detached=False)
        for size in (MIB, 3 * MIB)
    )
    with pytest.raises(AccessError, match=f"need at least {4096 + 8 * 258048}"):
        make_layout(small, 64)
    assert make_layout(large, 64).notes == ()


def test_former_contents_of_the_header_areas_are_gone_and_the_data_stay(engine, load, open_file):
    content = b"old!" * MIB
    fd = open_file(content)
    made = format_volume(engine, fd, load(PASSPHRASE), params(offset=4096))
    data = os.pread(fd, len(content), 0)
    assert b"old!" not in data[: made.payload_offset]
    assert data[made.payload_offset :] == content[made.payload_offset :]
    for number in range(1, 8):
        area = made.get_area(number)
        # random, so that used and unused areas look alike
        assert len(set(data[area.offset : area.offset + 4096])) > 200


def test_a_detached_header_leaves_every_byte_of_the_data(engine, load, open_file):
    content = random.Random(1).randbytes(2 * MIB)
    fd, header_fd = open_file(content), open_file(os.urandom(300_000))
    made = format_volume(engine, fd, load(PASSPHRASE), params(), header_fd=header_fd)
    assert os.pread(fd, 3 * MIB, 0) == content
    assert (made.payload_offset, get_size(header_fd)) == (0, 4096 + 8 * 258048)
    secret = load(PASSPHRASE)
    opened = open_luks(engine, made, header_fd, secret, data_size=2 * MIB, read_only=False)
    assert opened.table.size == 2 * MIB


def test_volume_key_may_be_given(engine, load, open_file):
    wanted = bytes(range(64))
    key = engine.load_key(open_file(wanted), 64, xts=True)
    made = format_volume(engine, open_file(SIZE), load(PASSPHRASE), params(), volume_key=key)
    assert made.digest == hashlib.pbkdf2_hmac("sha256", wanted, made.digest_salt, 1000, 20)
    open_luks_with_key(engine, made, key, data_size=SIZE, read_only=False)


def test_costs_are_measured_unless_forced(engine, load, open_file):
    def measure(milliseconds):
        pbkdf = PbkdfParams(type="pbkdf2", milliseconds=milliseconds)
        made = format_volume(engine, open_file(SIZE), load(PASSPHRASE), params(pbkdf=pbkdf))
        return made.keyslots[0].iterations, made.digest_iterations

    cheap, dear = measure(20), measure(200)
    assert 4 < dear[0] / cheap[0] < 25
    # lib/luks1/keymanage.c: an eighth of a second, whatever a keyslot shall take
    assert 0.3 < cheap[1] / dear[1] < 3
    assert cheap[1] > cheap[0] > 1000


def test_two_volumes_have_nothing_random_in_common(engine, load, open_file):
    one, other = (
        format_volume(engine, open_file(SIZE), load(PASSPHRASE), params()) for _ in range(2)
    )
    assert one.uuid != other.uuid
    assert one.digest_salt != other.digest_salt
    assert one.digest != other.digest
    assert one.keyslots[0].salt != other.keyslots[0].salt


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"cipher": "aes-nonsense"}, UnsupportedError, "nonsense"),
        ({"cipher": "paes-xts-plain64"}, UnsupportedError, "not with LUKS1"),
        ({"key_bits": 100}, ConfigError, "multiple of 8"),
        ({"key_bits": 128}, ConfigError, "wanted 256, 384, 512"),
        ({"key_slot": 8}, ConfigError, "keyslot 8: wanted 0 to 7"),
        ({"uuid": "1234"}, ConfigError, "UUID"),
        ({"offset": -8}, ConfigError, "offset"),
        ({"offset": 1 << 32}, ConfigError, "offset"),
        ({"offset": 8192, "alignment": 8}, ConfigError, "one of them"),
        ({"pbkdf": PbkdfParams(iterations=4)}, UnsupportedError, "argon2id"),
    ],
)
def test_parameters_that_cannot_be_are_refused(changes, error, what):
    with pytest.raises(error, match=what):
        params(**changes)


@pytest.mark.parametrize(
    ("offset", "what"), [(4041, "not a multiple of 8"), (4032, "header and key material take 4040")]
)
def test_sizes_that_cannot_be_are_refused_before_a_byte_is_written(
    engine, load, open_file, offset, what
):
    fd = open_file(b"\xaa" * 3 * MIB)
    with pytest.raises(ConfigError, match=what):
        format_volume(engine, fd, load(PASSPHRASE), params(offset=offset))
    assert os.pread(fd, 4 * MIB, 0) == b"\xaa" * 3 * MIB
