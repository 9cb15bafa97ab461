"""Build the engine's C library as a cffi extension, in API mode.

As a script it builds in place, for development; setup.py builds it into a wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from cffi import FFI

SOURCES: Final = Path(__file__).resolve().parent
PACKAGE: Final = SOURCES.parent
ROOT: Final = PACKAGE.parent.parent
MODULE: Final = "fusecrypt.dmcrypt.engine._engine"

sys.path.insert(0, str(SOURCES))
from cdef import CDEF, HEADERS  # noqa: E402 (beside this file, and not an installed package while building)

WARNINGS: Final = ["-Wall", "-Wextra", "-Wconversion", "-Wno-unused-parameter"]
FLAGS: Final = [
    "-std=gnu17",
    "-O2",
    "-g",
    "-D_GNU_SOURCE",
    "-pthread",
    "-fstack-protector-strong",
    "-fvisibility=hidden",
]


def make_builder(sources: Path) -> FFI:
    """The cffi builder for the C files in ``sources``."""
    builder = FFI()
    builder.cdef(CDEF)
    builder.set_source(
        MODULE,
        "\n".join(f'#include "{name}"' for name in HEADERS),
        sources=sorted(str(path) for path in sources.glob("*.c")),
        include_dirs=[str(sources)],
        depends=sorted(str(path) for path in sources.glob("*.h")),
        libraries=["gcrypt", "argon2"],
        extra_compile_args=FLAGS,
        extra_link_args=["-pthread", "-Wl,-z,relro,-z,now"],
    )
    return builder


# setuptools refuses absolute paths, and runs this from the top of the repository.
ffibuilder: Final = make_builder(SOURCES.relative_to(ROOT))


def main() -> None:
    """Build into build/engine, and put the result into the package."""
    scratch = ROOT / "build" / "engine"
    scratch.mkdir(parents=True, exist_ok=True)
    built = Path(make_builder(SOURCES).compile(tmpdir=str(scratch)))
    target = PACKAGE / built.name
    # A running engine keeps the old file: never write into it.
    staged = target.with_suffix(".new")
    staged.write_bytes(built.read_bytes())
    staged.chmod(0o755)
    staged.rename(target)


if __name__ == "__main__":
    main()
