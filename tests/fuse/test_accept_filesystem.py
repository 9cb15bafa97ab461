"""A file system inside a mapped device: what people do with one."""

import os
import shutil
import subprocess

import pytest

from tests.lab import cryptsetup, golden
from tests.product import wait_for

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FUSE2FS = """
import subprocess, sys, os, time
device, place, mode = sys.argv[1:]
subprocess.run(["fuse2fs", "-o", "fakeroot", device, place], check=True, capture_output=True)
try:
    name = os.path.join(place, "file")
    if mode == "write":
        with open(name, "wb") as file:
            file.write(b"written by a user" * 1000)
    else:
        with open(name, "rb") as file:
            assert file.read() == b"written by a user" * 1000
finally:
    subprocess.run(["fusermount3", "-u", place], check=True)
"""


@pytest.fixture
def entry(instance):
    key = instance.write_file("key", b"passphrase")
    image = cryptsetup.luks_format(
        instance.directory / "image", key, 64 << 20, "--sector-size", "4096"
    )
    return f"v {image} {key} luks"


@pytest.mark.root
def test_ext4_on_a_loop_device_survives_a_restart_and_fsck(instance, entry, tmp_path):
    instance.start(entry)
    device = instance.device("v")
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
    data = os.urandom(5 << 20)

    def mounted(work):
        result = subprocess.run(
            ["mount", "-o", "loop", device, tmp_path], capture_output=True, text=True, check=False
        )
        if "failed to setup loop device" in result.stderr:
            pytest.skip("no loop devices here")
        assert result.returncode == 0, result.stderr
        try:
            work()
        finally:
            subprocess.run(["umount", tmp_path], check=True)

    mounted(lambda: (tmp_path / "file").write_bytes(data))
    # The loop device is given back asynchronously; the daemon waits for it as far as it promises.
    wait_for(lambda: instance.cli("status", "v", "--json").json["in_use"] == 0, "loop gone")
    assert instance.stop() == 0
    instance.start(entry)
    read = []
    mounted(lambda: read.append((tmp_path / "file").read_bytes()))
    assert read == [data]
    subprocess.run(["e2fsck", "-fn", device], check=True, capture_output=True)
    assert instance.stop() == 0


def test_the_ext4_of_the_corpus_is_clean(instance, tmp_path):
    for name in ("luks2-ext4-s4096",):
        image = golden.find(name)
        files = golden.unpack(image, tmp_path)
        key = golden.GOLDEN / image["unlock"][0]["keyfile"]
        instance.start(f"v {files['data']} {key} luks,read-only")
        subprocess.run(["e2fsck", "-fn", instance.device("v")], check=True, capture_output=True)
        assert instance.stop() == 0


def test_a_user_mounts_ext4_with_fuse2fs(user_instance):
    if shutil.which("fuse2fs") is None:
        pytest.skip("fuse2fs is not installed")
    key = user_instance.write_file("key", b"passphrase")
    image = cryptsetup.luks_format(user_instance.directory / "image", key, 40 << 20)
    user_instance.own(image)
    place = user_instance.directory / "place"
    place.mkdir()
    user_instance.own(place)
    user_instance.start(f"v {image} {key} luks")
    device = user_instance.device("v")
    made = user_instance.io(
        "import os, sys; os.execvp('mkfs.ext4', ['mkfs.ext4', '-q', '-F', sys.argv[1]])", device
    )
    assert made.returncode == 0, made.stderr.decode()
    for mode in ("write", "read"):
        result = user_instance.io(FUSE2FS, device, place, mode)
        assert result.returncode == 0, result.stderr.decode()
        wait_for(
            lambda: user_instance.cli("status", "v", "--json").json["in_use"] == 0, "fuse2fs gone"
        )
    assert user_instance.stop() == 0


def test_fio_verifies_what_it_wrote(instance, entry):
    if shutil.which("fio") is None:
        pytest.skip("fio is not installed (tests/lab/install.sh)")
    instance.start(entry)
    for options in (
        ["--rw=randwrite", "--bsrange=512-130k", "--bs_unaligned", "--ioengine=psync"],
        ["--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--iodepth=16", "--direct=1"],
        ["--rw=write", "--bs=1M", "--direct=1"],
    ):
        result = subprocess.run(
            [
                *("fio", "--name=verify", f"--filename={instance.device('v')}", "--size=24M"),
                *("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"),
                *("--allow_file_create=0", *options),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    assert instance.stop() == 0
