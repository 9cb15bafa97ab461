"""LUKS1 volumes that we made or converted in the kernel's hands, and its volumes in ours."""

import hashlib
import os

import pytest

from tests.lab import cryptsetup, vm
from tests.lab.writes import odd_writes

pytestmark = [pytest.mark.fuse, pytest.mark.vm, pytest.mark.slow]

SIZE = 1 << 20
OFFSET = 4608  # sectors
QUICK = ("--pbkdf-force-iterations", "1000")
OURS = (
    ("aes-xts-plain64", "512", "sha256"),
    ("aes-xts-plain", "384", "sha512"),  # needs a kernel: no library has it
    ("aes-cbc-essiv:sha256", "128", "sha1"),
    ("serpent-xts-plain64", "512", "whirlpool"),
    ("twofish-cbc-plain64", "256", "ripemd160"),
    ("camellia-xts-plain64", "256", "sha3-256"),
    ("aes-lrw-benbi", "384", "sha384"),
)
THEIRS = (("aes-xts-plain", "384", "sha224"), ("serpent-cbc-essiv:sha256", "192", "blake2b-512"))
EXCHANGE = (
    "cryptsetup open --disable-keyring --key-file /in/key /dev/vd{letter} v{letter}\n"
    "echo v{letter} $(sha256sum < /dev/mapper/v{letter})\n"
    "dd if=/in/new of=/dev/mapper/v{letter} bs=64k conv=fsync status=none\n"
    "cryptsetup close v{letter}\n"
)
FORMAT = (
    "cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --offset 4608 "
    "-c {cipher} -s {bits} --hash {hash} /dev/vd{letter} /in/key\n"
)


def test_the_kernel_reads_what_we_made_and_we_read_what_it_made(instance, tmp_path):
    key = instance.write_file("key", b"shared passphrase")
    new = tmp_path / "new"
    new.write_bytes(os.urandom(SIZE // 2))
    images, script = [], "set -e\n"
    for cipher, bits, hash_name in OURS:
        image = tmp_path / f"ours{len(images)}"
        image.write_bytes(bytes(OFFSET * 512 + SIZE))
        instance.cli("luksFormat", "-q", "--type", "luks1", *QUICK, "-c", cipher, "-s", bits,
                     "--hash", hash_name, "--offset", OFFSET, "--key-file", key, image)  # fmt: skip
        script += EXCHANGE.format(letter=chr(97 + len(images)))
        images.append(image)
    # Keys and headers change types: LUKS1 becomes LUKS2, and LUKS2 LUKS1.
    instance.cli("convert", "-q", "--type", "luks2", images[0])
    converted = tmp_path / "converted"
    cryptsetup.luks_format(
        *(converted, key, OFFSET * 512 + SIZE, "--luks2-metadata-size", "16k"),
        *("--luks2-keyslots-size", "2m", "--offset", str(OFFSET), "--sector-size", "512"),
        *cryptsetup.QUICK_PBKDF,
    )
    instance.cli("convert", "-q", "--type", "luks1", converted)
    script += EXCHANGE.format(letter=chr(97 + len(images)))
    images.append(converted)
    for cipher, bits, hash_name in THEIRS:
        image = tmp_path / f"theirs{len(images)}"
        image.write_bytes(bytes(OFFSET * 512 + SIZE))
        letter = chr(97 + len(images))
        script += FORMAT.format(letter=letter, cipher=cipher, bits=bits, hash=hash_name)
        script += EXCHANGE.format(letter=letter)
        images.append(image)

    instance.start()
    contents = {}
    for image in images[: -len(THEIRS)]:
        instance.cli("open", "--key-file", key, image, image.name)
        expected = bytearray(instance.device(image.name).read_bytes())
        odd_writes(instance.device(image.name), expected)
        contents[image] = expected
        instance.cli("close", image.name)

    said = vm.run(script, images, [key, new])
    sums = dict(line.split()[:2] for line in said.splitlines() if line.startswith("v"))
    for number, (image, content) in enumerate(contents.items()):
        assert sums[f"v{chr(97 + number)}"] == hashlib.sha256(content).hexdigest(), image.name
    for image in images:
        instance.cli("open", "--key-file", key, image, image.name)
        found = instance.device(image.name).read_bytes()
        assert found[: SIZE // 2] == new.read_bytes(), image.name
        if image in contents:
            assert found[SIZE // 2 :] == contents[image][SIZE // 2 :], image.name
        instance.cli("close", image.name)
    assert instance.stop() == 0
