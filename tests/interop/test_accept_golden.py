"""Every image of tests/golden, through the command line and the mount.

The images were made by cryptsetup 2.6.1 and written by the kernel's dm-crypt.
"""

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.lab import cryptsetup, golden, sectors
from tests.lab.writes import odd_writes
from tests.product import running, why_no_fuse

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def daemon(scratch):
    """One daemon for the whole module: opening is what is tested, not starting."""
    reason = why_no_fuse()
    if reason:
        pytest.skip(reason)
    with running(scratch) as instance:
        instance.start()
        yield instance
        assert instance.stop() == 0


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parameters(found):
    return [pytest.param(image, id=image["name"]) for image in found]


@pytest.mark.parametrize("image", parameters(golden.images("opens")))
def test_opens_with_the_recorded_plaintext(daemon, tmp_path, image):
    files = golden.unpack(image, tmp_path)
    before = {path: digest(path) for path in files.values()}
    for number in range(max(1, len(image["unlock"]))):
        secret, stdin = golden.unlock_arguments(image, files, number)
        daemon.cli(*golden.open_arguments(image, files, "v"), "--readonly", *secret, stdin=stdin)
        device = daemon.device("v")
        assert device.stat().st_size == image["plaintext"]["size"]
        assert digest(device) == image["plaintext"]["sha256"]
        daemon.cli("close", "v")
    assert {path: digest(path) for path in files.values()} == before


@pytest.mark.parametrize("image", parameters(golden.images("refused")))
def test_what_is_out_of_scope_is_refused_by_name_and_unchanged(daemon, tmp_path, image):
    files = golden.unpack(image, tmp_path)
    before = {path: digest(path) for path in files.values()}
    secret, stdin = golden.unlock_arguments(image, files) if image.get("unlock") else ([], b"x\n")
    result = daemon.run(*golden.open_arguments(image, files, "v"), *secret, stdin=stdin)
    assert result.status in (1, 2, 9), result
    assert len(result.stderr.strip().splitlines()) == 1, result
    assert not daemon.device("v").exists()
    assert {path: digest(path) for path in files.values()} == before


def independent_plaintext(image, data: Path) -> bytes:
    """The plaintext by the tests' own implementation, from the recorded volume key."""
    dm = image["dm"]
    start = dm["offset"] * 512
    large = "iv_large_sectors" in dm["opts"]
    return sectors.crypt(
        data.read_bytes()[start : start + dm["sectors"] * 512],
        dm["cipher"],
        bytes.fromhex(image["volume_key_hex"]),
        sector_size=dm["sector_size"],
        first_iv=dm["iv_offset"] // (dm["sector_size"] // 512 if large else 1),
        large_sectors=large,
    )


def data_path(image) -> tuple:
    """What decides how data are enciphered, and where; the kernel's table, but for its key."""
    dm = image["dm"]
    place = dm["offset"], dm["iv_offset"], dm["sector_size"], *dm["opts"]
    return image["type"], dm["cipher"], len(image["volume_key_hex"]), place


#: One image for each data path: its keyslots and tokens make no difference to writes.
WRITABLE = list(
    {
        data_path(image): image
        for image in golden.images("opens")
        if sectors.has(image["dm"]["cipher"]) and image["plaintext"]["size"] <= 2 << 20
    }.values()
)


# Without a kernel that has more, the real cryptsetup has AES only, and no AES-192-XTS.
NEED_A_KERNEL = {"luks2-aes-xts-plain64-384-s512", "luks2-keyslot-serpent"}


def cryptsetup_has(image) -> bool:
    cipher = image["dm"]["cipher"]
    return image["name"] not in NEED_A_KERNEL and re.match("aes-(xts|cbc|ctr)-", cipher) is not None


@pytest.mark.parametrize("image", parameters(WRITABLE))
def test_the_second_implementation_agrees_with_the_kernel(tmp_path, image):
    files = golden.unpack(image, tmp_path)
    plaintext = independent_plaintext(image, files["data"])
    assert hashlib.sha256(plaintext).hexdigest() == image["plaintext"]["sha256"]


@pytest.mark.parametrize("image", parameters(WRITABLE))
def test_odd_writes_are_read_back_by_a_second_implementation(daemon, tmp_path, image):
    files = golden.unpack(image, tmp_path)
    secret, stdin = golden.unlock_arguments(image, files)
    daemon.cli(*golden.open_arguments(image, files, "v"), *secret, stdin=stdin)
    expected = bytearray(daemon.device("v").read_bytes())
    odd_writes(daemon.device("v"), expected)
    assert daemon.device("v").read_bytes() == expected
    daemon.cli("close", "v")
    assert independent_plaintext(image, files["data"]) == expected
    if image["type"] == "luks2" and "header" not in files and cryptsetup_has(image):
        unlock = image["unlock"][0]
        if "offset" not in unlock:
            assert cryptsetup.decrypt(files["data"], golden.GOLDEN / unlock["keyfile"]) == expected


def test_two_images_at_a_time_do_not_touch_each_other(daemon, tmp_path):
    chosen = [
        golden.find("luks2-aes-xts-plain64-512-s512"),
        golden.find("luks2-aes-xts-plain64-512-s4096"),
    ]
    for image in chosen:
        files = golden.unpack(image, tmp_path)
        secret, stdin = golden.unlock_arguments(image, files)
        daemon.cli(*golden.open_arguments(image, files, image["name"]), *secret, stdin=stdin)
    with daemon.device(chosen[0]["name"]).open("r+b") as file:
        file.write(os.urandom(100_000))
        os.fsync(file.fileno())
    assert digest(daemon.device(chosen[1]["name"])) == chosen[1]["plaintext"]["sha256"]
    for image in chosen:
        daemon.cli("close", image["name"])
