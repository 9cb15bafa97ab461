"""What the processes take: one volume, and each further one. The figures go into the report."""

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MIB = 1 << 20
ONE_VOLUME = 80 * MIB  # daemon and engine, resident, no I/O
WITH_KEYSTORED = 120 * MIB
EACH_FURTHER = 1 * MIB
MANY = 100


def resident(instance, *others):
    """Resident bytes of daemon and engine, and of other processes."""
    total = 0
    for word in ("fusecryptd", "fusecrypt.dmcrypt.engine", *others):
        pages = int(Path(f"/proc/{instance.pid(word)}/statm").read_text().split()[1])
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def test_resident_memory_of_one_and_of_many_volumes(instance, record_figure):
    lines = []
    for number in range(MANY):
        image = instance.directory / f"image{number}"
        with image.open("wb") as file:
            file.truncate(2 * MIB)
        key = instance.write_file(f"key{number}", os.urandom(64))
        lines.append(f"v{number} {image} {key} plain,cipher=aes-xts-plain64,size=512")
    instance.start(lines[0])
    one = resident(instance)
    assert instance.stop() == 0
    instance.start(*lines)
    assert len(instance.cli("list", "--json").json["volumes"]) == MANY
    many = resident(instance)
    assert instance.stop() == 0
    each = (many - one) / (MANY - 1)
    record_figure("MiB with one volume", round(one / MIB, 1))
    record_figure("MiB for each further", round(each / MIB, 3))
    assert one < ONE_VOLUME
    assert each < EACH_FURTHER


def test_resident_memory_with_a_secure_key(instance, record_figure):
    instance.cli("adapter", "create", "03.0039")
    key = instance.directory / "key.skey"
    instance.cli("zkey", "generate", key, "--xts")
    image = instance.write_file("image", bytes(2 * MIB))
    instance.start(f"v {image} {key} plain,cipher=paes-xts-plain64,size=1024")
    taken = resident(instance, "fusecrypt-keystored")
    assert instance.stop() == 0
    record_figure("MiB of daemon, engine and keystored", round(taken / MIB, 1))
    assert taken < WITH_KEYSTORED
