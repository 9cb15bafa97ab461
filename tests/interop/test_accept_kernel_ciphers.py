"""Every cipher, mode and IV against the kernel: each deciphers what the other enciphered."""

import hashlib
import random

import pytest

from tests.lab import vm
from tests.unit.engine.crypto_library import Cipher

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RANDOM = random.Random(6)
SIZE = 40 << 10  # bytes of each volume: all of 64 keys take their turn
NEW = 16 << 10  # bytes that the kernel writes

#: Cipher, bytes of key, sector size, IV offset, whether IVs count large sectors.
CASES = [
    *((f"aes-cbc-{iv}", 32, 512, 2**32 - 16, False) for iv in ("plain", "plain64", "plain64be")),
    *((f"aes-xts-{iv}", 64, 512, 2**32 - 16, False) for iv in ("plain", "plain64", "plain64be")),
    *((f"aes-{mode}-benbi", 32, 512, 3, False) for mode in ("cbc", "xts", "lrw", "ctr", "pcbc")),
    *((f"aes-{mode}-null", 32, 512, 0, False) for mode in ("cbc", "xts", "lrw", "ctr", "pcbc")),
    *((f"aes-{mode}-eboiv", 32, 4096, 8, True) for mode in ("cbc", "xts", "lrw", "pcbc")),
    *((f"aes-{mode}-eboiv", 32, 512, 8, False) for mode in ("cbc", "xts")),
    *((f"aes-{mode}-elephant", 64, 512, 2**33, False) for mode in ("cbc", "xts")),
    *((f"aes-{mode}-elephant", 64, 4096, 16, True) for mode in ("cbc",)),
    *((f"aes-{mode}-tcw", 64, 512, 7, False) for mode in ("cbc", "xts", "ctr", "pcbc")),
    ("aes-cbc-essiv:sha256", 32, 4096, 2**64 - 32, False),
    ("aes-xts-essiv:sha256", 64, 512, 5, False),
    ("aes-xts-plain64", 48, 512, 2**64 - 8, False),
    ("aes-xts-plain64", 64, 4096, 2**64 - 32, True),
    ("aes-xts-plain64", 64, 1024, 2, True),
    ("aes-xts-plain64", 32, 2048, 4, False),
    ("aes-ctr-plain64be", 24, 512, 2**63, False),
    ("aes-ecb-plain64", 16, 512, 0, False),
    ("aes-cbc-lmk", 16, 512, 2**40 + 1, False),
    ("aes:64-cbc-lmk", 1024, 512, 5, False),
    ("aes:64-cbc-lmk", 1040, 512, 5, False),
    ("blowfish-cbc-lmk", 32, 512, 1, False),
    ("cast5:64-cbc-lmk", 1040, 512, 9, False),
    ("aes:2-cbc-plain64", 64, 512, 1, False),
    ("aes:4-xts-plain64", 256, 4096, 8, False),
    ("aes:4-xts-plain64", 256, 4096, 8, True),
    ("aes:4-cbc-essiv:sha256", 128, 512, 3, False),
    ("aes:2-cbc-eboiv", 64, 512, 3, False),
    ("aes:2-cbc-elephant", 64, 512, 3, False),
    ("aes:2-cbc-tcw", 64, 512, 3, False),
    ("capi:cbc(aes)-essiv:sha256", 32, 512, 0, False),
    ("capi:essiv(cbc(aes),sha256)-plain64be", 32, 512, 11, False),
    ("capi:essiv(xts(aes),sha256)-benbi", 64, 512, 11, False),
    ("capi:lrw(aes)-benbi", 48, 4096, 8, False),
    ("serpent-xts-plain64", 64, 512, 0, False),
    ("serpent-cbc-essiv:sha256", 32, 512, 0, False),
    ("serpent-lrw-benbi", 32, 512, 0, False),
    ("serpent:2-cbc-plain64", 40, 512, 0, False),
    ("twofish-xts-plain64", 32, 4096, 0, False),
    ("twofish-pcbc-benbi", 32, 512, 0, False),
    ("camellia-xts-plain64", 48, 512, 0, False),
    ("camellia-ctr-plain64", 16, 512, 0, False),
    ("cast5-cbc-essiv:md5", 16, 512, 6, False),
    ("cast5-ctr-benbi", 16, 512, 6, False),
    ("blowfish-cbc-plain64be", 56, 512, 2**40, False),
    ("blowfish-pcbc-eboiv", 16, 512, 6, False),
    ("blowfish-cbc-tcw", 56, 512, 6, False),
    ("blowfish-cbc-elephant", 32, 512, 6, False),
    ("des3_ede-cbc-benbi", 24, 512, 6, False),
    ("des-cbc-plain64", 8, 512, 6, False),
    ("cipher_null-ecb", 0, 512, 6, False),
    ("xchacha20,aes-adiantum-plain64", 32, 512, 2**33, False),
    ("xchacha20,aes-adiantum-benbi", 32, 1024, 2, False),
    ("capi:adiantum(xchacha20,aes)-plain64be", 32, 4096, 8, True),
]


def table_of(number, case, key) -> str:
    cipher, _, sector_size, iv_offset, large = case
    options = [f"sector_size:{sector_size}"] * (sector_size != 512) + ["iv_large_sectors"] * large
    line = (
        f"0 {SIZE // 512} crypt {cipher} {key.hex() or '-'} {iv_offset} "
        f"/dev/vda {number * SIZE // 512}"
    )
    return f"{line} {len(options)} {' '.join(options)}" if options else line


def test_the_kernel_and_the_engine_read_each_other(tmp_path):
    new = tmp_path / "new"
    new.write_bytes(RANDOM.randbytes(NEW))
    image, plaintexts, ciphers = tmp_path / "image", [], []
    script = ""
    try:
        with image.open("wb") as file:
            for number, case in enumerate(CASES):
                cipher, key_size, sector_size, iv_offset, large = case
                key = RANDOM.randbytes(key_size)
                ciphers.append(Cipher(cipher, key, sector_size=sector_size, iv_large_sectors=large))
                plaintexts.append(RANDOM.randbytes(SIZE))
                file.write(ciphers[-1].encrypt(plaintexts[-1], iv_offset))
                script += (
                    f"dmsetup create v --table '{table_of(number, case, key)}' && {{\n"
                    f"echo v{number} $(sha256sum < /dev/mapper/v)\n"
                    "dd if=/in/new of=/dev/mapper/v bs=4k conv=fsync status=none\n"
                    "dmsetup remove v\n} || dmesg | tail -2\n"
                )
        said = vm.run(script, [image], [new])
        sums = dict(line.split()[:2] for line in said.splitlines() if line.startswith("v"))
        stored = image.read_bytes()
        wrong = []
        for number, case in enumerate(CASES):
            expected = hashlib.sha256(plaintexts[number]).hexdigest()
            back = ciphers[number].decrypt(stored[number * SIZE : (number + 1) * SIZE], case[3])
            if sums.get(f"v{number}") != expected:
                wrong.append(("the kernel read", sums.get(f"v{number}"), case))
            if back != new.read_bytes() + plaintexts[number][NEW:]:
                wrong.append(("the kernel wrote", case))
        assert not wrong, said[-2000:]
    finally:
        for cipher in ciphers:
            cipher.__exit__()
