"""Unpack the kernel inside a bzImage: QEMU without KVM starts a plain ELF kernel seconds faster.

Source: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

Usage: extract_vmlinux.py BZIMAGE OUTPUT
"""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

SETUP_SECTS_OFFSET: Final = 0x1F1
PAYLOAD_OFFSET: Final = 0x248  # two 32-bit words: offset from the protected-mode code, length
# The first bytes of what a Debian kernel may be compressed with, and the program that unpacks it.
PROGRAMS: Final = {
    b"\x02\x21\x4c\x18": "lz4",
    b"\xfd7zX": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b\x08\x00": "gzip",
}


def extract(image: bytes) -> bytes:
    """The ELF file inside a bzImage.

    Raises:
        ValueError: it holds no kernel in a form that we know.
    """
    setup_sectors = image[SETUP_SECTS_OFFSET] or 4
    offset, length = struct.unpack_from("<II", image, PAYLOAD_OFFSET)
    start = (setup_sectors + 1) * 512 + offset
    # The last four bytes are the unpacked size, which no decompressor knows.
    payload = image[start : start + length - 4]
    program = PROGRAMS.get(payload[:4])
    if program is None:
        raise ValueError(f"payload at byte {start}: unknown compression {payload[:4].hex()}")
    # They warn about trailing bytes: the result decides.
    kernel = subprocess.run([program, "-dc"], input=payload, capture_output=True, check=False)
    if not kernel.stdout.startswith(b"\x7fELF"):
        raise ValueError(f"payload at byte {start}: {program} made no ELF file of it")
    return kernel.stdout


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(extract(Path(sys.argv[1]).read_bytes()))
