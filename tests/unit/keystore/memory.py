"""What is in the memory of a process."""

import re


def read_memory(pid):
    """All writable memory of a process."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match and "[v" not in line:
                start, end = int(match[1], 16), int(match[2], 16)
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"".join(parts)
