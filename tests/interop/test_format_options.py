"""luksFormat's options: the same volume and exit code as with the real cryptsetup."""

import re
import shutil
from pathlib import Path

import pytest

from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

PBKDF2 = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
ARGON = "--pbkdf-force-iterations 4 --pbkdf-memory 64 --pbkdf-parallel 2"
SIZE = 20 << 20
UUID = "01234567-89ab-cdef-0123-456789abcdef"
#: Of luksDump, what differs from one volume to the next.
RANDOM = re.compile(r"UUID:|Epoch:|MK (digest|salt)|\s+(Salt|Digest):|\s+([0-9a-f]{2} )+$")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("format"))
    (lab.directory / "vk").write_bytes(bytes(range(64)))
    lab.key("p1")
    return lab


def both(lab: Lab, line: str) -> tuple[list[Path], list[int], list[str]]:
    """The headers that we and the real tool made, exit codes, and what we said."""
    headers, codes, said = [], [], []
    for who, run in (("ours", lab.ours), ("theirs", lab.real)):
        image, header = lab.directory / who, lab.directory / f"{who}.hdr"
        image.write_bytes(bytes(SIZE))
        header.unlink(missing_ok=True)
        names = {"HEADER": header, "VK": lab.directory / "vk"}
        words = [names.get(word, word) for word in line.split()]
        done = run("luksFormat", "-q", *words, image, lab.key("p1"))
        headers.append(header if "HEADER" in line else image)
        codes.append(done.code)
        said.append(done.err)
    return headers, codes, said


def shape(lab: Lab, header: Path) -> list[str]:
    shown = lab.real_ok("luksDump", header).replace(str(header), "")
    return [line for line in shown.splitlines() if not RANDOM.match(line)]


ACCEPTED = [
    f"--type luks2 {PBKDF2}",
    f"{PBKDF2} --cipher aes-cbc-essiv:sha256 --key-size 128 --hash sha512",
    f"{PBKDF2} -c aes-cbc-plain64 -s 192 --sector-size 1024",
    f"{PBKDF2} --sector-size 4096 --label one --subsystem two --uuid {UUID}",
    f"--pbkdf argon2id {ARGON}",
    f"--pbkdf argon2i {ARGON} --hash sha1",
    f"{PBKDF2} --luks2-metadata-size 64k --luks2-keyslots-size 2m --key-slot 31",
    f"{PBKDF2} --offset 8192",
    f"{PBKDF2} --offset 0",
    f"{PBKDF2} --align-payload 4096",
    f"{PBKDF2} --align-payload 0",
    f"{PBKDF2} --luks2-keyslots-size 1m --align-payload 8",
    f"{PBKDF2} --keyslot-cipher aes-cbc-plain64 --keyslot-key-size 256",
    f"{PBKDF2} --header HEADER",
    f"--type luks1 {PBKDF2} --header HEADER --align-payload 8192",
    f"{PBKDF2} --volume-key-file VK --use-urandom",
    f"--type luks1 {PBKDF2} --volume-key-file VK --use-random",
    f"--type luks1 {PBKDF2} --sector-size 512 --key-slot 3 --uuid {UUID} --hash sha1",
    f"--type luks1 {PBKDF2} --offset 0 --force-password",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_an_option_makes_the_same_volume(lab: Lab, line: str) -> None:
    headers, codes, said = both(lab, line)
    assert codes == [0, 0], said
    ours, theirs = (shape(lab, header) for header in headers)
    assert ours == theirs
    if "HEADER --align" not in line:  # cryptsetup makes a header's file as long as that
        assert headers[0].stat().st_size == headers[1].stat().st_size
    assert lab.opens(headers[0], "p1")
    if UUID in line:
        assert lab.real_ok("luksUUID", headers[0]).strip() == UUID


REFUSED = [
    "--key-slot 32",
    "--sector-size 1000",
    "--key-size 100",
    "--uuid 12",
    "--offset 4041",
    "--offset 8",
    "--offset 32768 --align-payload 8",
    "--luks2-metadata-size 17k",
    "--luks2-keyslots-size 4097",
    "--keyslot-cipher aes-xts-plain64",
    "--keyslot-key-size 512",
    "--keyslot-cipher cipher_null-ecb --keyslot-key-size 128",
    "--iter-time 10",
    "--header HEADER --offset 16",
    "--header HEADER --align-payload 8",
    "--type plain",
    "--type nonsense",
    "--type luks1 --sector-size 4096",
    "--type luks1 --key-slot 8",
    "--type luks1 --offset 4032",
    "--type luks1 --luks2-metadata-size 16k",
    "--type luks1 --keyslot-cipher aes-cbc-plain64 --keyslot-key-size 256",
    "--volume-key-file /etc/hostname",
]


@pytest.mark.parametrize("line", REFUSED)
def test_what_the_real_tool_refuses_is_refused_with_its_exit_code(lab: Lab, line: str) -> None:
    headers, codes, said = both(lab, f"{PBKDF2} {line}")
    assert codes[0] == codes[1] != 0, said
    assert (lab.directory / "ours").read_bytes() == bytes(SIZE)
    assert headers[0].name == "ours" or not headers[0].exists()


#: What the real tool takes and drops, and what it has and we have not: refused by name.
OURS = {
    "--type luks1 --label x": (1, "--label"),
    f"{PBKDF2} --pbkdf-parallel 2": (1, "parallel"),
    "--type luks1 --pbkdf argon2id": (9, "argon2id"),
    "--type luks1 --hash md5": (9, "md5"),
    "--integrity hmac-sha256": (9, "--integrity"),
    "--integrity-no-wipe": (9, "--integrity-no-wipe"),
    "--hw-opal": (9, "--hw-opal"),
    "--hash nonsense": (9, "nonsense"),
    "--keyslot-cipher rot13-xts-plain64 --keyslot-key-size 256": (9, "rot13"),
    "--keyslot-cipher aes-xts-plain64 --keyslot-key-size 250": (1, "250"),
    "-c cipher_null-ecb": (8, "cipher_null"),
}


@pytest.mark.parametrize("line", OURS)
def test_what_cannot_be_is_refused_by_name(lab: Lab, line: str) -> None:
    image = lab.directory / "image"
    image.write_bytes(bytes(SIZE))
    words = line.split()
    code, name = OURS[line]
    done = lab.ours("luksFormat", "-q", *words, image, lab.key("p1"))
    assert (done.code, name in done.err) == (code, True), done
    assert image.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_dry_run_says_what_would_be_and_writes_nothing(lab: Lab, kind: str) -> None:
    image, header = lab.directory / "image", lab.directory / "no.hdr"
    image.write_bytes(bytes(SIZE))
    shown = lab.ours_ok("luksFormat", "--type", kind, "--dry-run", image)
    assert "holds nothing that is known" in shown
    end = {"luks1": 4096 + 8 * 258048, "luks2": 16 << 20}[kind]
    assert f"Its first {end} bytes" in shown
    lab.ours_ok("luksFormat", "--type", kind, "--dry-run", "--header", header, image)
    assert not header.exists()
    assert image.read_bytes() == bytes(SIZE)
    lab.real_ok("luksFormat", "-q", *PBKDF2.split(), image, lab.key("p1"))
    assert "crypto_LUKS (luks2)" in lab.ours_ok("luksFormat", "--type", kind, "--dry-run", image)
