"""Suspending, resuming, resizing: exit codes and states are those of the real tools on a kernel."""

import hashlib
import os
import re

import pytest

from tests.lab import cryptsetup, vm

pytestmark = [pytest.mark.fuse, pytest.mark.vm, pytest.mark.slow]

SIZE = 4 << 20
OPEN = "open --disable-keyring --key-file {key} {image} v"
PLAIN = "open --type plain -c aes-xts-plain64 -s 512 --key-file {plain} {image} p"

#: One line each, the same for cryptsetup and for fusecrypt.
STEPS = (
    "luksSuspend v",
    "luksResume v --key-file {key}",
    "resize v",
    OPEN,
    "luksResume v --key-file {key}",
    "resize --size 99999999 v",
    "resize --device-size 1000 v",
    "resize --size 2048 v",
    "status v",
    "resize --device-size 2M v",
    "status v",
    "resize v",
    "luksSuspend v",
    "luksSuspend v",
    "status v",
    "resize --size 2048 v",
    "luksResume v --key-file {wrong}",
    "luksResume v --key-file {key} --key-slot 0",
    "status v",
    "luksSuspend v",
    "close v",
    PLAIN,
    "luksSuspend p",
    "luksResume p --key-file {key}",
    "resize --size 2048 p",
    "status p",
    "close p",
    OPEN,
    "refresh --disable-keyring --allow-discards --persistent --key-file {key} v",
    "status v",
    "open --refresh --disable-keyring --key-file {key} {image} v",
    "status v",
    "open --refresh --disable-keyring --persistent --key-file {key} {image} v",
    "status v",
    "refresh --disable-keyring --key-file {key} v",
    "status v",
    "close --cancel-deferred v",
    "close --deferred --cancel-deferred v",
    "status v",
    "close v",
    "close --cancel-deferred v",
    "refresh --disable-keyring --key-file {key} v",
    OPEN.replace("open", "open --allow-discards"),
    "status v",
    "close v",
)


def summary(code, said):
    """What both tools say in their own words: the code, and of a status mode, flags and size."""
    found = re.findall(r"(?m)^ +(mode|flags|size): +(\d+|[a-z/ ()]+\b\)?)", said)
    return code, [(name, value.strip()) for name, value in found]


def test_each_step_ends_as_with_the_real_tool_and_the_data_are_the_same(instance, tmp_path):
    key = instance.write_file("key", b"a passphrase")
    files = {
        "key": key,
        "wrong": instance.write_file("wrong", b"another"),
        "plain": instance.write_file("plain", os.urandom(64)),
    }
    image = cryptsetup.luks_format(tmp_path / "image", key, SIZE + (512 << 10))
    real = tmp_path / "real"
    real.write_bytes(image.read_bytes())

    ours = []
    for step in STEPS:
        result = instance.run(*step.format(image=image, **files).split())
        ours.append(summary(result.status, result.stdout))
    # Written while it was made smaller and larger, suspended and resumed.
    instance.cli(*OPEN.format(image=image, **files).split())
    with instance.device("v").open("r+b") as device:
        device.write(os.urandom(1 << 20))
        instance.cli("resize", "--device-size", "2M", "v")
        device.flush()
        instance.cli("luksSuspend", "v")
        instance.cli("luksResume", "v", "--key-file", key)
        instance.cli("resize", "v")
        device.seek(3 << 20)
        device.write(b"behind the end that there was")
        device.flush()
        os.fsync(device.fileno())
    text = hashlib.sha256(instance.device("v").read_bytes()).hexdigest()
    instance.cli("close", "v")

    script = ""
    places = {name: f"/in/{path.name}" for name, path in files.items()}
    for number, step in enumerate(STEPS):
        words = step.format(image="/dev/vda", **places)
        script += f"cryptsetup {words} > /tmp/said 2>&1; echo STEP {number} $?; cat /tmp/said\n"
    script += (
        "cryptsetup open --disable-keyring --key-file /in/key /dev/vdb w\n"
        "echo SHA $(sha256sum < /dev/mapper/w)\n"
    )
    said = vm.run(script, [real, image], list(files.values()))
    parts = re.split(r"(?m)^STEP \d+ (\d+)$", said)
    theirs = [summary(int(code), text) for code, text in zip(parts[1::2], parts[2::2], strict=True)]
    assert len(theirs) == len(STEPS)
    for step, mine, wanted in zip(STEPS, ours, theirs, strict=True):
        assert mine == wanted, step
    assert ("mode", "read/write (suspended)") in ours[14][1]
    assert ("flags", "discards") in ours[-2][1]
    assert re.search(r"SHA ([0-9a-f]{64})", said)[1] == text
