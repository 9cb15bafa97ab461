"""Opening with a real engine: its keys are right when they have the digest of the known ones."""

import hashlib
import os

import pytest

from fusecrypt.dmcrypt.backing import pread_from, pread_of
from fusecrypt.dmcrypt.engine.messages import DigestSpec
from fusecrypt.dmcrypt.luks2 import read_header
from fusecrypt.dmcrypt.luks_header import read_luks_header
from fusecrypt.dmcrypt.open_volume import (
    check_luks,
    get_key_size,
    open_luks,
    open_luks_with_key,
    open_plain,
)
from fusecrypt.dmcrypt.plain import make_params
from fusecrypt.keystore.errors import (
    AccessError,
    ConfigError,
    DigestMismatchError,
    FormatError,
    MapperError,
    NoKeyError,
    UnlockError,
    UnsupportedError,
)
from tests.golden import corpus
from tests.lab import sectors
from tests.unit.dmcrypt.headers import BASE, edited, read

PASSPHRASE = b"correct horse battery staple"
ACCEPTED = corpus.images("luks2", accepted=True)
DERIVED = [case for case in corpus.derived() if case.name.startswith("derived-l2")]


def is_key(engine, key, wanted):
    salt = os.urandom(16)
    made = engine.make_digest(key, DigestSpec("sha256", 1000, salt, b"", 32))
    return made == hashlib.pbkdf2_hmac("sha256", wanted, salt, 1000, 32)


def key_of(opened):
    (segment,) = opened.table.segments
    return segment.key


def unlock(engine, image, fd, secret, **options):
    """Open an image whose header is in ``fd``."""
    header = read_header(pread_from(fd), os.fstat(fd).st_size)
    size = len(image.data)
    return open_luks(engine, header, fd, secret, data_size=size, **{"read_only": True} | options)


@pytest.mark.parametrize("image", ACCEPTED, ids=lambda image: image.name)
def test_every_golden_secret_opens_its_volume_with_the_key_it_has(engine, load, open_file, image):
    fd = open_file(image.header)
    for secret in image.about["unlock"]:
        number = secret.get("slot")
        ignored = secret.get("priority") == "ignore"
        loaded = load(bytes.fromhex(secret["secret_hex"]))
        opened = unlock(engine, image, fd, loaded, key_slot=number if ignored else None)
        assert is_key(engine, key_of(opened), image.volume_key)
        if number is not None:
            assert opened.keyslot == number
        dm = image.about["dm"]
        assert opened.cipher == dm["cipher"]
        assert opened.key_bits == dm["key_bits"]
        assert (opened.offset, opened.iv_offset) == (dm["offset"] * 512, dm["iv_offset"])
        assert opened.table.size == dm["sectors"] * 512
        assert opened.uuid


@pytest.mark.parametrize(
    "image",
    [image for image in ACCEPTED if sectors.has(image.about["cipher"])],
    ids=lambda image: image.name,
)
def test_golden_tables_decipher_to_the_plaintext_that_the_kernel_read(image):
    header = read(image.header)
    notes = check_luks(header, len(image.data), read_only=False)
    assert bool(notes) == ("cipher_null" in image.about["cipher"])
    segment = header.metadata.segments[0]
    plaintext = sectors.crypt(
        image.data[segment.offset :],
        segment.encryption,
        image.volume_key,
        sector_size=segment.sector_size,
        first_iv=segment.iv_tweak,
    )
    assert hashlib.sha256(plaintext).hexdigest() == image.about["plaintext"]["sha256"]


@pytest.mark.parametrize("image", corpus.images("luks2", accepted=False), ids=lambda i: i.name)
def test_other_ciphers_are_refused_by_name_before_any_secret_is_needed(image):
    header = read(image.header)
    with pytest.raises(UnsupportedError, match=r"segments\.0\.encryption: cipher"):
        check_luks(header, len(image.data), read_only=True)


@pytest.mark.parametrize("case", DERIVED, ids=lambda case: case.name)
def test_derived_images_open_or_not_as_with_cryptsetup_and_are_never_written(
    engine, load, open_file, case
):
    data = case.data
    fd = open_file(data)
    secret = load(corpus.read_key(case.about["key"]))
    wanted: type[MapperError] | None = {0: None, 2: NoKeyError}.get(case.real["open"], MapperError)

    def attempt():
        header = read_header(pread_from(fd), len(data))
        return open_luks(engine, header, fd, secret, data_size=len(data), read_only=False)

    if wanted is None:
        opened = attempt()
        assert opened.table.size == case.real["plaintext_size"]
        assert is_key(engine, key_of(opened), corpus.get_image(case.about["base"]).volume_key)
        is_odd = "flags" in case.name or "duplicate" in case.name
        assert bool(opened.notes) == (case.real["repairs_on_read"] or is_odd)
    else:
        with pytest.raises(wanted):
            attempt()
    assert os.pread(fd, len(data) + 1, 0) == data


def test_header_backup_serves_as_a_detached_header(engine, load, open_file):
    image = corpus.get_image("luks2-hdrbackup")
    backup = image.read("header-backup")
    header = read(backup)
    size = len(image.data)
    secret = load(PASSPHRASE)
    opened = open_luks(engine, header, open_file(backup), secret, data_size=size, read_only=False)
    assert is_key(engine, key_of(opened), image.volume_key)
    assert opened.offset == image.about["dm"]["offset"] * 512


def test_wrong_passphrase_is_no_key(engine, load, open_file):
    image = corpus.get_image("luks2-5slots")
    with pytest.raises(NoKeyError, match="no key available with this passphrase"):
        unlock(engine, image, open_file(image.data), load(b"wrong"))


def test_secret_of_an_ignored_keyslot_opens_only_by_number(engine, load, open_file):
    image = corpus.get_image("luks2-5slots")
    fd, secret = open_file(image.data), load(corpus.read_key("keys/bin"))
    with pytest.raises(NoKeyError):
        unlock(engine, image, fd, secret)
    assert unlock(engine, image, fd, secret, key_slot=31).keyslot == 31
    with pytest.raises(NoKeyError):
        unlock(engine, image, fd, secret, key_slot=0)


def test_secret_of_an_unbound_keyslot_does_not_open(engine, load, open_file):
    image = corpus.get_image("luks2-unbound-slot")
    fd, secret = open_file(image.data), load(corpus.read_key("keys/pw2"))
    with pytest.raises(NoKeyError):
        unlock(engine, image, fd, secret)
    with pytest.raises(UnlockError, match="unbound"):
        unlock(engine, image, fd, secret, key_slot=2)


def test_damaged_keyslot_does_not_keep_the_others_from_opening(engine, load, open_file):
    def spoil(root):
        root["keyslots"]["7"]["kdf"]["salt"] = "!"

    fd = open_file(edited(spoil, base="luks2-5slots"))
    image = corpus.get_image("luks2-5slots")
    assert unlock(engine, image, fd, load(PASSPHRASE)).keyslot == 0
    with pytest.raises(FormatError, match=r"keyslot 7: keyslots\.7\.kdf\.salt: not base64"):
        unlock(engine, image, fd, load(b"wrong"))


def test_volume_key_opens_by_its_digest(engine, open_file):
    image = corpus.get_image(BASE)
    header = read(image.data)
    size = len(image.data)
    assert get_key_size(header) == len(image.volume_key)
    right = engine.load_key(open_file(image.volume_key), 64, xts=True)
    opened = open_luks_with_key(engine, header, right, data_size=size, read_only=False)
    assert is_key(engine, key_of(opened), image.volume_key)
    assert (opened.keyslot, opened.key_bits, opened.table.read_only) == (None, 512, False)
    wrong = engine.generate_key(64, xts=True)
    with pytest.raises(DigestMismatchError, match="volume key does not match"):
        open_luks_with_key(engine, header, wrong, data_size=size, read_only=False)


def test_labels_are_shown(engine, load, open_file):
    image = corpus.get_image("luks2-label")
    opened = unlock(engine, image, open_file(image.data), load(PASSPHRASE))
    assert (opened.label, opened.subsystem) == ("lab-label", "lab-subsys")
    assert opened.uuid == "01234567-89ab-cdef-0123-456789abcdef"


def segment(root):
    return root["segments"]["0"]


def reencrypting(root):
    root["segments"]["1"] = segment(root) | {"flags": ["backup-final"]}
    root["digests"]["0"]["segments"] = ["0", "1"]


INTEGRITY = {"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"}


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda r: segment(r).update(integrity=INTEGRITY), r"segments\.0\.integrity: hmac"),
        (lambda r: segment(r).update(type="linear"), r"segments\.0\.type: linear"),
        (lambda r: segment(r).update(type="crypt-opal"), "crypt-opal"),
        (lambda r: segment(r).update(sector_size=8192), r"sector_size: 8192"),
        (lambda r: segment(r).update(encryption="aes-xts"), "encryption: cipher aes-xts"),
        (lambda r: segment(r).update(encryption=""), "encryption: cipher ''"),
        (reencrypting, "reencryption"),
        (lambda r: r["config"].update(requirements={"mandatory": ["opal"]}), "opal is not"),
        (lambda r: r["config"].update(requirements={"mandatory": ["foo"]}), "foo is not known"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(edit, what):
    header = read(edited(edit))
    with pytest.raises(UnsupportedError, match=what):
        check_luks(header, 1 << 20, read_only=False)


def test_unknown_requirement_may_be_opened_read_only():
    header = read(edited(lambda r: r["config"].update(requirements={"mandatory": ["foo"]})))
    check_luks(header, 1 << 20, read_only=True)


def test_unknown_flag_is_a_note():
    header = read(edited(lambda r: r["config"].update(flags=["no-journal", "foo"])))
    (note,) = check_luks(header, 1 << 20, read_only=False)
    assert note == "config.flags: foo is not known, ignored"


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (524288, "no remaining space for data: 524288 bytes, the data begin at 524288"),
        (524288 + 511, "no remaining space"),
        (0, "no remaining space"),
    ],
)
def test_device_without_room_for_data_is_too_small(size, what):
    with pytest.raises(AccessError, match=what):
        check_luks(read(corpus.get_image(BASE).data), size, read_only=False)


def test_data_that_are_not_whole_sectors_are_refused():
    header = read(corpus.get_image("luks2-aes-xts-plain64-512-s4096").data)
    check_luks(header, 524288 + 8192, read_only=False)
    with pytest.raises(AccessError, match="8704 bytes of data are not a multiple of the sector"):
        check_luks(header, 524288 + 8704, read_only=False)


def test_luks1_volumes_of_no_cipher_are_refused_since_their_keyslots_have_it(
    engine, load, open_file
):
    data = bytearray(corpus.get_image("luks1-aes-cbc-plain-128-sha1").data)
    data[8:72] = b"cipher_null".ljust(32, b"\0") + b"ecb".ljust(32, b"\0")
    header = read_luks_header(pread_of(bytes(data)), len(data))
    with pytest.raises(UnsupportedError, match=r"keyslot 0: .*cipher_null-ecb"):
        open_luks(
            engine,
            header,
            open_file(bytes(data)),
            load(PASSPHRASE),
            data_size=len(data),
            read_only=True,
        )


@pytest.mark.parametrize("image", corpus.images("plain", accepted=True), ids=lambda i: i.name)
def test_plain_volumes_get_the_key_that_cryptsetup_made(engine, load, image):
    plain = image.about["plain"]
    keyfile = "passphrase" not in plain
    params = make_params(
        cipher=plain["cipher"],
        key_bits=plain["key_bits"],
        hash_spec=plain["hash"],
        has_keyfile=keyfile,
        offset=plain["offset"],
        skip=plain["skip"],
        size=plain["size"],
        sector_size=plain["sector_size"],
        iv_large_sectors=plain["iv_large_sectors"],
    )
    if "keyfile_hex" in plain:
        secret = load(bytes.fromhex(plain["keyfile_hex"]))
    else:
        data = corpus.read_key(plain["keyfile" if keyfile else "passphrase"])
        secret = load(data, offset=plain.get("keyfile_offset", 0))
    size = len(image.data)
    opened = open_plain(engine, params, secret, keyfile=keyfile, data_size=size, read_only=False)
    assert is_key(engine, key_of(opened), image.volume_key)
    assert opened.table.size == image.about["plaintext"]["size"]
    assert (opened.cipher, opened.key_bits) == (plain["cipher"], plain["key_bits"])
    assert bool(opened.notes) == (plain["hash"] == "sha256:0")


def test_plain_passphrase_needs_a_hash(engine, load):
    params = make_params(cipher="aes-cbc-plain", key_bits=256, hash_spec=None, has_keyfile=True)
    with pytest.raises(ConfigError, match="hash must be given"):
        open_plain(engine, params, load(b"x"), keyfile=False, data_size=4096, read_only=True)


def test_plain_key_file_shorter_than_the_key_is_refused(engine, load):
    params = make_params(cipher="aes-cbc-plain", key_bits=256, hash_spec=None, has_keyfile=True)
    with pytest.raises(UnlockError, match="31 bytes, wanted 32"):
        open_plain(engine, params, load(b"x" * 31), keyfile=True, data_size=4096, read_only=True)


def test_xts_keys_of_equal_halves_are_refused(engine, load):
    params = make_params(cipher="aes-xts-plain64", key_bits=512, hash_spec=None, has_keyfile=True)
    secret = load(b"half a key of AES in XTS mode.. " * 2)
    with pytest.raises(UnlockError, match="halves"):
        open_plain(engine, params, secret, keyfile=True, data_size=4096, read_only=True)
