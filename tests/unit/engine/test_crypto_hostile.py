"""Hostile parameters, under the sanitizers: fuzz_crypto.c with a short run of its own inputs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "dmcrypt" / "engine" / "src"
TARGET = ROOT / "tests" / "fuzz" / "engine" / "fuzz_crypto.c"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hostile_parameters_give_errors_or_results_and_nothing_else(compiler, tmp_path):
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    program = tmp_path / "fuzz"
    subprocess.run(
        [
            *(compiler, "-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"),
            *("-DFUZZ_ALONE", "-pthread", "-fsanitize=address,undefined"),
            *("-fno-sanitize-recover=all", f"-I{SOURCES}", "-o", str(program), str(TARGET)),
            *sorted(str(path) for path in SOURCES.glob("*.c")),
            "-lgcrypt",
            "-largon2",
        ],
        check=True,
    )
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run([program, str(seed), "5000"], check=False, timeout=300)
    assert done.returncode == 0, f"seed {seed}"
