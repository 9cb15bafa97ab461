"""luksDump, isLuks, luksUUID: exit codes and text as the real tool's, of whatever file there is."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecrypt.daemon.cli import main
from tests.golden import corpus
from tests.lab.header_volume import Lab

#: Where the real tool ends with 1, ours may say more: a damaged header, or one it has not.
SAYS_MORE = (1, 7, 9)
VERBS = ("luksDump", "isLuks", "luksUUID")

needs_cryptsetup = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command line sets handlers, which are not this process's."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = int(main([str(word) for word in words]))
    return code, capsys.readouterr().out


@pytest.mark.parametrize("image", [*corpus.images("luks1"), *corpus.images("luks2")],
                         ids=lambda image: image.name)  # fmt: skip
def test_good_headers_are_shown_as_the_real_tool_did(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, image: corpus.Image
) -> None:
    # LUKS1's first line names the file.
    first = image.dump.splitlines()[0].split()
    path = tmp_path / (first[-1] if len(first) > 3 else "img")
    path.write_bytes(image.header)
    kind = str(image.about["type"])
    assert run(capsys, "isLuks", path) == (0, "")
    assert run(capsys, "isLuks", "--type", kind, path) == (0, "")
    assert run(capsys, "isLuks", "--type", {"luks1": "luks2"}.get(kind, "luks1"), path)[0] == 1
    code, shown = run(capsys, "luksDump", path)
    assert (code, shown.replace(str(tmp_path) + "/", "")) == (0, image.dump)
    uuid = next(line.split()[-1] for line in image.dump.splitlines() if line.startswith("UUID"))
    assert run(capsys, "luksUUID", path) == (0, f"{uuid}\n")


@pytest.mark.parametrize("case", corpus.derived(), ids=lambda case: case.name)
def test_damaged_headers_end_with_the_exit_code_that_is_recorded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, case: corpus.Derived
) -> None:
    path = tmp_path / "img"
    path.write_bytes(case.data)
    code, _ = run(capsys, "luksDump", path)
    assert code == 0 if case.real["luksDump"] == 0 else code in SAYS_MORE
    assert run(capsys, "isLuks", path)[0] == case.real["isLuks"]
    assert path.read_bytes() == case.data


GOOD = corpus.get_image("luks1-aes-xts-plain64-512-sha256").data[: 3 << 20]
FOREIGN = {
    "empty": b"",
    "zeros": bytes(1 << 20),
    "text": b"no LUKS at all\n" * 100,
    "magic only": b"LUKS\xba\xbe",
    "magic and a version": b"LUKS\xba\xbe\0\1" + bytes(4096),
    "version 2 and nothing": b"LUKS\xba\xbe\0\2" + bytes(1 << 16),
    "version 3": b"LUKS\xba\xbe\0\3" + GOOD[8:],
    "LUKS1 cut in the header": GOOD[:500],
    "LUKS1 cut in the key material": GOOD[: 1 << 20],
    "LUKS1 without data": GOOD[: 2 << 20],
    "LUKS1, stripes": GOOD[:252] + b"\0\0\0\1" + GOOD[256:],
    "LUKS1, no key size": GOOD[:108] + bytes(4) + GOOD[112:],
    "LUKS1, a key of 4 GiB": GOOD[:108] + b"\xff" * 4 + GOOD[112:],
    "LUKS1, payload in the key material": GOOD[:104] + b"\0\0\1\0" + GOOD[108:],
    "LUKS1, no cipher": GOOD[:8] + bytes(64) + GOOD[72:],
    "LUKS1, no UUID": GOOD[:168] + bytes(40) + GOOD[208:],
    "LUKS1, a keyslot neither on nor off": GOOD[:256] + b"\1\2\3\4" + GOOD[260:],
}


@needs_cryptsetup
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_and_torn_files_end_as_with_the_real_tool(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    lab = Lab(tmp_path)
    path = tmp_path / "img"
    path.write_bytes(FOREIGN[name])
    for verb in VERBS:
        real = lab.real(verb, path)
        code, shown = run(capsys, verb, path)
        wanted = SAYS_MORE if real.code == 1 and verb != "isLuks" else (real.code,)
        assert code in wanted, (verb, real)
        if real.code == 0:
            assert shown == real.out, verb
    assert path.read_bytes() == FOREIGN[name]


@needs_cryptsetup
def test_what_is_no_file_ends_as_with_the_real_tool(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lab = Lab(tmp_path)
    for path in (tmp_path / "none", tmp_path, Path("/dev/null")):
        for verb in VERBS:
            assert run(capsys, verb, path)[0] == lab.real(verb, path).code, (verb, path)
