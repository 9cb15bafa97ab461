"""Bad crypttab lines: each costs its own entry, is told once, and changes nothing on disk."""

import hashlib
import re

import pytest

from tests.lab import cryptsetup

pytestmark = pytest.mark.fuse

PASSPHRASE = b"the right passphrase"
SIZE = 524288 + (1 << 20)

WRONG_DEVICE = 4
PARTLY_DONE = 10


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A good LUKS2 image, to be copied."""
    directory = tmp_path_factory.mktemp("pristine")
    key = directory / "key"
    key.write_bytes(PASSPHRASE)
    return cryptsetup.luks_format(directory / "image", key, SIZE, "--sector-size", "4096")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


CRYPTTAB_ERRORS = {
    "one field": ("bad", "bad"),
    "missing source": ("bad /no/such/image {key} luks", "/no/such/image"),
    "missing key file": ("bad {image} /no/such/key luks", "/no/such/key"),
    "wrong key": ("bad {image} {wrong} luks", "bad"),
    "garbage source": ("bad {wrong} {key} luks", "bad"),
    "name with a slash": ("b/ad {image} {key} luks", "b/ad"),
    "duplicate name": ("good {image} {key} luks", "good"),
    "bad offset": ("bad {image} {key} plain,cipher=aes-xts-plain64,size=512,offset=x", "offset=x"),
    "bad skip": ("bad {image} {key} plain,cipher=aes-xts-plain64,size=512,skip=1x", "skip=1x"),
    "relative header": ("bad {image} {key} luks,header=relative", "header=relative"),
    "header twice": ("bad {image} {key} luks,header=/a,header=/b", "header"),
    "plain without cipher": ("bad {image} {key} plain,size=512", "cipher"),
    "plain without size": ("bad {image} {key} plain,cipher=aes-xts-plain64", "size"),
    "unsupported swap": ("bad {image} {key} swap,cipher=aes-xts-plain64,size=512", "swap"),
    "unsupported tmp": ("bad {image} {key} tmp=ext4", "tmp=ext4"),
    "unsupported tcrypt": ("bad {image} {key} tcrypt", "tcrypt"),
    "unsupported bitlk": ("bad {image} {key} bitlk", "bitlk"),
    "unsupported keyscript": ("bad {image} {key} luks,keyscript=decrypt_gnupg", "keyscript"),
    "unsupported tpm2": ("bad {image} {key} luks,tpm2-device=auto", "tpm2-device"),
    "unsupported cipher": ("bad {image} {key} plain,cipher=aria-cbc-plain64,size=256", "aria"),
    "wrong keyslot": ("bad {image} {key} luks,key-slot=9", "9"),
    "key file too short": (
        "bad {image} {key} plain,cipher=aes-xts-plain64,size=512,keyfile-offset=1000000",
        "bad",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CRYPTTAB_ERRORS)
def test_a_bad_crypttab_line_costs_that_entry_only(instance, pristine, case):
    line, named = CRYPTTAB_ERRORS[case]
    key = instance.write_file("key", PASSPHRASE)
    wrong = instance.write_file("wrong", b"\xff" * 4096)
    good = instance.write_file("good.img", pristine.read_bytes())
    image = instance.write_file("bad.img", pristine.read_bytes())
    before = digest(image)
    bad = line.format(image=image, key=key, wrong=wrong)
    instance.crypttab.write_text(f"# a comment\n\ngood {good} {key} luks\n{bad}\n")

    result = instance.run_daemon("--fork")
    try:
        assert result.status == PARTLY_DONE, result
        said = result.stderr.strip().splitlines()
        about = [text for text in said if named in text]
        assert len(about) == 1, f"wanted one line about {named}\n{result}"
        if case not in ("missing source", "missing key file", "wrong key", "garbage source",
                        "unsupported cipher", "wrong keyslot", "key file too short"):  # fmt: skip
            assert f"{instance.crypttab}:4" in about[0], about[0]
        assert instance.device("good").stat().st_size == SIZE - 524288
        assert not instance.device("bad").exists()
        assert digest(image) == before
    finally:
        instance.stop()


def test_crypttab_warnings_cost_nothing(instance, pristine):
    key = instance.write_file("key", PASSPHRASE)
    image = instance.write_file("image", pristine.read_bytes())
    options = "luks,no-such-option,sector-size=1000,tries=x,x-systemd.device-timeout=10,_netdev"
    instance.crypttab.write_text(f"v {image} {key} {options}\n")
    result = instance.run_daemon("--fork")
    assert result.status == 0, result
    assert instance.device("v").exists()
    log = instance.read_log() + result.stderr
    for word in ("no-such-option", "sector-size=1000", "tries=x"):
        assert re.search(rf"{re.escape(str(instance.crypttab))}:1.*{re.escape(word)}", log), log
    instance.stop()


def test_nofail_and_noauto(instance, pristine):
    key = instance.write_file("key", PASSPHRASE)
    image = instance.write_file("image", pristine.read_bytes())
    instance.crypttab.write_text(
        f"gone /no/such/image {key} luks,nofail\nlater {image} {key} luks,noauto\n"
    )
    result = instance.run_daemon("--fork")
    assert result.status == 0, result
    assert not instance.device("later").exists()
    instance.cli("open", "later")
    assert instance.device("later").exists()
    instance.stop()


def test_an_empty_and_a_missing_crypttab(instance):
    result = instance.run_daemon("--fork")
    assert result.status == 0, result
    instance.stop()
    instance.crypttab.unlink()
    result = instance.run_daemon("--fork")
    assert result.status == WRONG_DEVICE, result
    assert str(instance.crypttab) in result.stderr
    assert not instance.pids()
