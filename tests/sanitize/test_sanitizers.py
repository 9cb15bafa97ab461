"""The C engine under sanitizers: one program that hammers a device from all sides."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "dmcrypt" / "engine" / "src"
# The process's own frame: it needs a mount, which the stress does without.
LEFT_OUT = {
    *("engine.c", "control.c", "key_requests.c", "key_text.c"),
    *("device_requests.c", "read_device.c", "session_requests.c"),
    *("fuse_loop.c", "forward.c", "sandbox.c"),
}


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_parallel_io_and_changes_of_a_device_are_clean(tmp_path, compiler, sanitizer):
    program = tmp_path / "stress"
    files = [str(path) for path in SOURCES.glob("*.c") if path.name not in LEFT_OUT]
    built = subprocess.run(
        [
            compiler,
            *("-std=gnu17", "-O1", "-g", "-D_GNU_SOURCE", "-pthread"),
            *(f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", f"-I{SOURCES}"),
            *(str(ROOT / "tests" / "sanitize" / "stress.c"), *files),
            *("-lgcrypt", "-largon2", "-o", str(program)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
