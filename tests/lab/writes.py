"""Writes that begin and end inside sectors, and what the device must hold afterwards."""

import os
import random
from pathlib import Path


def odd_writes(device: Path, expected: bytearray, seed: int = 20261121) -> None:
    """Write through ``device`` at odd places, buffered and synced; do the same to ``expected``."""
    size = len(expected)
    places = [(0, 1), (1, 1), (510, 3), (513, 1000), (4095, 2), (4096, 4096), (size - 1, 1)]
    places += [(size - 5001, 4999), (size // 2 - 1, 70_001), (12_288, 1 << 17)]
    generator = random.Random(seed)
    places += [
        (generator.randrange(size - 10_000), generator.randrange(1, 10_000)) for _ in range(40)
    ]
    with device.open("r+b", buffering=0) as file:
        for offset, length in places:
            data = generator.randbytes(min(length, size - offset))
            written = 0
            while written < len(data):
                written += os.pwrite(file.fileno(), data[written:], offset + written)
            expected[offset : offset + len(data)] = data
        os.fsync(file.fileno())
