"""What we wrote, read by the kernel's dm-crypt; what it wrote, read by us."""

import hashlib
import os

import pytest

from tests.lab import cryptsetup, vm
from tests.lab.writes import odd_writes

pytestmark = [pytest.mark.fuse, pytest.mark.vm, pytest.mark.slow]

SIZE = 1 << 20
LUKS = (
    ("aes-xts-plain64", 512, 512),
    ("aes-xts-plain64", 512, 4096),
    ("aes-cbc-essiv:sha256", 256, 512),
    ("aes-cbc-plain64be", 256, 2048),
)
PLAIN = (
    ("aes-xts-plain64", 512, 512, 8, 24, ""),
    ("aes-xts-plain64", 512, 4096, 16, 8, "--iv-large-sectors"),
    ("aes-cbc-essiv:sha256", 256, 512, 0, 7, ""),
)
OPEN_LUKS = "cryptsetup open --disable-keyring --key-file /in/key /dev/vd{letter} v{letter}\n"
OPEN_PLAIN = (
    "cryptsetup open --type plain --key-file /in/plain-key --cipher {cipher} --key-size {bits} "
    "--sector-size {sector} --offset {offset} --skip {skip} {large} /dev/vd{letter} v{letter}\n"
)
EXCHANGE = (
    "echo v{letter} $(sha256sum < /dev/mapper/v{letter})\n"
    "dd if=/in/new of=/dev/mapper/v{letter} bs=64k conv=fsync status=none\n"
    "cryptsetup close v{letter}\n"
)


def test_the_kernel_reads_what_we_wrote_and_we_read_what_it_wrote(instance, tmp_path):
    key = instance.write_file("key", b"shared passphrase")
    plain_key = instance.write_file("plain-key", os.urandom(64))
    new = tmp_path / "new"
    new.write_bytes(os.urandom(SIZE // 2))
    opened = {}
    script = "set -e\n"
    for number, (cipher, bits, sector) in enumerate(LUKS):
        image = tmp_path / f"luks{number}"
        options = ("--cipher", cipher, "--key-size", bits, "--sector-size", sector)
        if number % 2:
            cryptsetup.luks_format(image, key, 524288 + SIZE, *map(str, options))
        else:  # our own luksFormat, the real kernel
            image.write_bytes(bytes((16 << 20) + SIZE))
            instance.cli(
                "luksFormat", "-q", *options, *cryptsetup.QUICK_PBKDF, "--key-file", key, image
            )
        opened[image] = ("open", "--key-file", key, image)
        script += OPEN_LUKS.format(letter=chr(97 + number))
    for number, (cipher, bits, sector, offset, skip, large) in enumerate(PLAIN, len(LUKS)):
        image = tmp_path / f"plain{number}"
        image.write_bytes(bytes(offset * 512 + SIZE))
        opened[image] = (
            *("open", "--type", "plain", "--key-file", plain_key, "--cipher", cipher),
            *("--key-size", bits, "--sector-size", sector, "--offset", offset, "--skip", skip),
            *([large] if large else []),
            image,
        )
        script += OPEN_PLAIN.format(
            letter=chr(97 + number),
            cipher=cipher,
            bits=bits,
            sector=sector,
            offset=offset,
            skip=skip,
            large=large,
        )
    script += "".join(EXCHANGE.format(letter=chr(97 + n)) for n in range(len(opened)))

    instance.start()
    contents = {}
    for image, words in opened.items():
        instance.cli(*words, image.name)
        expected = bytearray(instance.device(image.name).read_bytes())
        odd_writes(instance.device(image.name), expected)
        contents[image] = expected
        instance.cli("close", image.name)

    said = vm.run(script, list(opened), [key, plain_key, new])
    sums = dict(line.split()[:2] for line in said.splitlines() if line.startswith("v"))
    for number, image in enumerate(opened):
        wanted = hashlib.sha256(contents[image]).hexdigest()
        assert sums[f"v{chr(97 + number)}"] == wanted, f"{image.name}: {opened[image]}"

    for image, words in opened.items():
        instance.cli(*words, image.name)
        expected = new.read_bytes() + contents[image][SIZE // 2 :]
        assert instance.device(image.name).read_bytes() == expected
        instance.cli("close", image.name)
    assert instance.stop() == 0
