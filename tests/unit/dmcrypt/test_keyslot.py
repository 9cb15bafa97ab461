import pytest

from fusecrypt.dmcrypt.engine.messages import KdfType
from fusecrypt.dmcrypt.luks2 import digest, keyslot
from fusecrypt.keystore.errors import FormatError, NotFoundError, UnlockError, UnsupportedError
from tests.golden import corpus
from tests.unit.dmcrypt.headers import edited, read


def metadata_of(name):
    return read(corpus.get_image(name).header).metadata


def ids(slots):
    return [slot.id for slot in slots]


def test_preferred_keyslots_come_first_then_normal_ones_and_ignored_ones_never():
    # Its keyslots: 0, 1, 2 normal, 7 preferred, 31 ignored.
    metadata = metadata_of("luks2-5slots")
    assert ids(keyslot.list_candidates(metadata, 0)) == [7, 0, 1, 2]
    assert ids(keyslot.list_candidates(metadata, 0, 31)) == [31]
    assert ids(keyslot.list_candidates(metadata, 0, 2)) == [2]


def test_unbound_keyslots_are_skipped_and_refused_by_number():
    metadata = metadata_of("luks2-unbound-slot")
    assert ids(keyslot.list_candidates(metadata, 0)) == [0]
    with pytest.raises(UnlockError, match="keyslot 2: holds no key of segment 0"):
        keyslot.list_candidates(metadata, 0, 2)


def test_missing_keyslot_is_named():
    with pytest.raises(NotFoundError, match="keyslot 5: does not exist"):
        keyslot.list_candidates(metadata_of("luks2-label"), 0, 5)


def test_keyslots_of_other_types_are_skipped_and_refused_by_number():
    def add(root):
        area = {"type": "z", "offset": "290816", "size": "4096"}
        root["keyslots"]["3"] = {"type": "q", "key_size": 1, "area": area}

    metadata = read(edited(add)).metadata
    assert ids(keyslot.list_candidates(metadata, 0)) == [0]
    with pytest.raises(UnsupportedError, match="type q"):
        keyslot.list_candidates(metadata, 0, 3)


@pytest.mark.parametrize("priority", [0, 3, -1, "x", [], None, False, 1e300])
def test_any_other_priority_means_ignored(priority):
    metadata = read(edited(lambda r: r["keyslots"]["0"].update(priority=priority))).metadata
    with pytest.raises(UnlockError, match="no usable keyslot"):
        keyslot.list_candidates(metadata, 0)
    assert ids(keyslot.list_candidates(metadata, 0, 0)) == [0]


def test_keyslot_is_handed_to_the_engine_as_the_header_says():
    pbkdf2 = keyslot.make_spec(metadata_of("luks2-label").keyslots[0])
    assert (pbkdf2.key_size, pbkdf2.stripes, pbkdf2.af_hash) == (64, 4000, "sha256")
    assert (pbkdf2.area_offset, pbkdf2.area_length) == (32768, 258048)
    assert (pbkdf2.area_cipher, pbkdf2.area_key_size) == ("aes-xts-plain64", 64)
    assert (pbkdf2.kdf.type, pbkdf2.kdf.iterations, pbkdf2.kdf.hash_name) == (
        KdfType.PBKDF2,
        1000,
        "sha256",
    )
    argon2 = keyslot.make_spec(metadata_of("luks2-5slots").keyslots[1]).kdf
    assert (argon2.type, argon2.iterations, argon2.memory_kib, argon2.lanes) == (
        KdfType.ARGON2ID,
        4,
        256,
        1,
    )


def test_stripes_are_4000_whatever_the_header_says():
    metadata = read(edited(lambda r: r["keyslots"]["0"]["af"].update(stripes=4001))).metadata
    assert keyslot.make_spec(metadata.keyslots[0]).stripes == 4000


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda s: s["kdf"].update(salt="!"), r"keyslots\.0\.kdf\.salt: not base64"),
        (lambda s: s["kdf"].update(salt=""), r"salt: 0 bytes"),
        (lambda s: s["kdf"].update(salt="A" * 1000), r"salt: 750 bytes"),
        (lambda s: s["kdf"].update(iterations=0), "iterations: got 0"),
        (lambda s: s["kdf"].update(iterations=-5), "iterations: got -5"),
        (lambda s: s["kdf"].update(iterations=2**32), "iterations: got 4294967296"),
        (
            lambda s: s["area"].update(size="255999"),
            "area.size: 255999, a key of 64 bytes needs 256000",
        ),
        (lambda s: s["area"].update(key_size=0), "area.key_size: got 0"),
        (lambda s: s.update(key_size=0), "key_size: got 0"),
    ],
)
def test_what_cannot_be_is_refused_when_the_keyslot_is_used(edit, what):
    metadata = read(edited(lambda root: edit(root["keyslots"]["0"]))).metadata
    with pytest.raises(FormatError, match=what):
        keyslot.make_spec(metadata.keyslots[0])


def test_unknown_kdf_is_refused_by_name():
    metadata = read(edited(lambda r: r["keyslots"]["0"]["kdf"].update(type="scrypt"))).metadata
    with pytest.raises(UnsupportedError, match="scrypt"):
        keyslot.make_spec(metadata.keyslots[0])


def test_digest_is_handed_to_the_engine_as_the_header_says():
    metadata = metadata_of("luks2-kdf-pbkdf2-sha512")
    spec = digest.make_spec(digest.get_digest(metadata, 0))
    assert (spec.hash_name, spec.iterations, len(spec.salt)) == ("sha512", 1000, 32)
    assert len(spec.digest) == spec.digest_length == 64


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda d: d.update(salt="!"), "salt: not base64"),
        (lambda d: d.pop("salt"), "salt: missing"),
        (lambda d: d.update(hash=5), "hash: missing"),
        (lambda d: d.update(iterations="7"), "iterations: got None"),
        (lambda d: d.update(digest=""), "digest: 0 bytes"),
    ],
)
def test_digest_that_cannot_be_is_refused_when_it_is_used(edit, what):
    metadata = read(edited(lambda root: edit(root["digests"]["0"]))).metadata
    with pytest.raises(FormatError, match=what):
        digest.make_spec(digest.get_digest(metadata, 0))


def test_digest_of_another_type_is_refused_by_name():
    metadata = read(edited(lambda r: r["digests"]["0"].update(type="blake3"))).metadata
    with pytest.raises(UnsupportedError, match="blake3"):
        digest.make_spec(digest.get_digest(metadata, 0))
