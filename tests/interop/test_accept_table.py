"""Raw tables of dmsetup, through the command line and the mount."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from tests.lab import golden, sectors
from tests.lab.writes import odd_writes

pytestmark = pytest.mark.fuse

KEY = "ab" * 32
RANDOM = random.Random(5)


@pytest.fixture
def running(instance):
    instance.start()
    yield instance
    assert instance.stop() == 0


def line_of(image, data: Path, *, start=0) -> str:
    """The table that dmsetup had, for the part of its device that we keep."""
    dm = image["dm"]
    options = " ".join([str(len(dm["opts"])), *dm["opts"]]) if dm["opts"] else ""
    key = image["volume_key_hex"]
    words = (start, dm["sectors"], "crypt", dm["cipher"], key, dm["iv_offset"], data, dm["offset"])
    return " ".join(map(str, words)) + (f" {options}" if options else "")


def test_dmsetups_tables_open_with_its_own_lines_and_take_writes(running, tmp_path):
    for image in golden.tables():
        name, dm = image["name"], image["dm"]
        data = golden.unpack(image, tmp_path)["data"]
        line = line_of(image, data)
        file = running.write_file("table", f"# a comment\n\n{line}\n".encode())
        running.cli("table", name, "--table", file)
        content = bytearray(running.device(name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == image["plaintext"]["sha256"], name
        # As dmsetup shows it: without the key, and with.
        shown = running.cli("table", name).stdout
        key = image["volume_key_hex"]
        assert shown == line.replace(key, "0" * len(key)) + "\n"
        assert running.cli("table", "--show-keys", name).stdout == f"{line}\n"
        odd_writes(running.device(name), content)
        running.cli("close", name)
        if sectors.has(dm["cipher"]):
            large = "iv_large_sectors" in dm["opts"]
            unit = dm["sector_size"] // 512 if large else 1
            assert content == sectors.crypt(
                data.read_bytes()[dm["offset"] * 512 :],
                dm["cipher"],
                bytes.fromhex(key),
                sector_size=dm["sector_size"],
                first_iv=dm["iv_offset"] // unit,
                large_sectors=large,
            ), name


@pytest.mark.parametrize("case", golden.manifest()["refused_tables"], ids=lambda c: c["name"])
def test_what_the_kernel_refuses_is_refused(running, tmp_path, case):
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    table = case["table"].replace("{image}", str(image))
    result = running.run("table", "v", "--table", "-", stdin=table.encode())
    assert result.status in (1, 9), result
    assert "line 1: " in result.stderr
    assert not running.device("v").exists()


def test_several_lines_and_files_make_one_device(running, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(RANDOM.randbytes(64 << 10))
    two.write_bytes(RANDOM.randbytes(64 << 10))
    table = (
        f"0 16 linear {one} 8\n"
        f"16 32 crypt aes-xts-plain64 {KEY[:-2]}00 7 {one} 32 2 no_read_workqueue same_cpu_crypt\n"
        "48 8 zero\n"
        "56 8 error\n"
        f"64 16 crypt aes-cbc-essiv:sha256 {KEY} 0 {two} 0\n"
        f"80 8 crypt cipher_null-ecb - 0 {two} 64\n"
    )
    running.cli("table", "v", "--table", "-", stdin=table.encode())
    device = running.device("v")
    assert device.stat().st_size == 88 * 512
    first, second = one.read_bytes(), two.read_bytes()
    expected = bytearray(88 * 512)
    expected[: 16 * 512] = first[8 * 512 : 24 * 512]
    expected[16 * 512 : 48 * 512] = sectors.crypt(
        first[32 * 512 : 64 * 512], "aes-xts-plain64", bytes.fromhex(f"{KEY[:-2]}00"), first_iv=7
    )
    expected[64 * 512 : 80 * 512] = sectors.crypt(
        second[: 16 * 512], "aes-cbc-essiv:sha256", bytes.fromhex(KEY)
    )
    expected[80 * 512 :] = second[64 * 512 : 72 * 512]
    with device.open("r+b", buffering=0) as file:
        assert os.pread(file.fileno(), 56 * 512, 0) == expected[: 56 * 512]
        with pytest.raises(OSError, match="Input/output"):
            os.pread(file.fileno(), 512, 57 * 512)
        assert os.pread(file.fileno(), 24 * 512, 64 * 512) == expected[64 * 512 :]
        os.pwrite(file.fileno(), b"x" * 6144, 44 * 512)  # crypt, then zero, which keeps nothing
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 2048, 44 * 512) == b"x" * 2048
        assert os.pread(file.fileno(), 4096, 48 * 512) == bytes(4096)
    shown = running.cli("table", "v").stdout.splitlines()
    assert [line.split()[2] for line in shown] == [
        *("linear", "crypt", "zero", "error", "crypt", "crypt")
    ]
    assert shown[1].endswith(f" 7 {one} 32 2 no_read_workqueue same_cpu_crypt")
    assert running.cli("table", "--show-keys", "v").stdout == table
    # Both files are in use.
    for file, start in ((one, 8), (two, 70)):
        result = running.run("table", "w", f"0 1 linear {file} {start}")
        assert result.status == 5, result
    running.cli("close", "v")
    running.cli("table", "w", f"0 1 linear {two} 70")


def test_a_key_on_the_command_line_is_refused_with_the_way_out(running, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(8192))
    result = running.run("table", "v", f"0 16 crypt aes-xts-plain64 {KEY} 0 {image} 0")
    assert result.status == 8
    assert "read by everybody" in result.stderr
    assert "--table FILE" in result.stderr
    assert KEY not in result.stderr
    running.cli("table", "v", f"0 16 crypt cipher_null-ecb - 0 {image} 0", "--readonly")
    assert running.cli("status", "v", "--json").json["read_only"]


@pytest.mark.parametrize(
    ("table", "status", "why"),
    [
        ("\n#\n", 1, "0 lines"),
        (KEY, 9, "wanted START LENGTH TARGET"),
        ("0 8 striped 2 8 {image} 0 {image} 8", 9, "wanted START LENGTH TARGET"),
        ("0 8 linear {image}", 1, "wanted DEVICE OFFSET"),
        ("0 8 zero 1", 1, "takes no arguments"),
        ("0 8 zero\n", 9, "maps no file"),
        ("8 8 linear {image} 0", 1, "starts at 8, wanted 0"),
        ("0 8 linear {image} 0\n16 8 zero", 1, "line 2: starts at 16, wanted 8"),
        ("0 0 linear {image} 0", 1, "length 0"),
        ("0 x linear {image} 0", 1, "length x"),
        ("0 99 linear {image} 0", 4, "has 16 sectors, wanted 99"),
        ("0 8 linear {image} 0\n8 8 linear {image} 7", 1, "overlaps"),
        ("0 8 crypt aes-xts-plain64 :32:logon:k 0 {image} 0", 9, "keyring"),
        ("0 8 crypt aes-xts-plain64 - 0 {image} 0", 1, "key of 0 bits"),
        ("0 8 crypt aes-xts-plain64 xyz 0 {image} 0", 1, "wanted hexadecimal digits"),
        ("0 8 crypt aes-xts-plain64 {key}0 0 {image} 0", 1, "wanted hexadecimal digits"),
        ("0 8 crypt aes-xts-plain64 {key} -1 {image} 0", 1, "IV offset -1"),
        ("0 8 crypt aes-xts-plain64 {key} 0 {image}", 1, "wanted CIPHER KEY"),
        ("0 8 crypt aes-xts-plain64 {key} 0 {image} 0 2 allow_discards", 1, "2 options announced"),
        ("0 8 crypt aes-xts-plain64 {key} 0 {image} 0 1 integrity:28:aead", 9, "integrity"),
        ("0 8 crypt aes-xts-plain64 {key} 4 {image} 0 1 sector_size:4096", 1, "IV offset 4"),
        ("0 8 crypt aes-cbc-lmk {short} 0 {image} 0 1 sector_size:4096", 1, "lmk"),
        ("0 8 crypt cipher_null-ecb {key} 0 {image} 0", 1, "takes no key"),
        ("0 8 crypt cast6-cbc-plain64 {key} 0 {image} 0", 9, "cast6"),
        ("0 8 linear {image} 0\n8 8 crypt aes-xts-plain64 {key} 0 {image} 8 1 sector_size:8192", 1,
         "line 2: sector_size:8192"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_line(tables, table, status, why):
    daemon, image = tables
    text = table.format(image=image, key=KEY, short=KEY[:32])
    result = daemon.run("table", "v", "--table", "-", stdin=text.encode())
    assert result.status == status, result
    assert why in result.stderr
    assert KEY not in result.stderr
    assert not daemon.device("v").exists()


@pytest.fixture(scope="module")
def tables(scratch):
    """One daemon, and a file of 16 sectors."""
    from tests.product import running as run_instance

    with run_instance(scratch) as daemon:
        daemon.start()
        image = daemon.write_file("image", bytes(8192))
        yield daemon, image
        assert daemon.stop() == 0


def test_the_table_of_any_volume_is_shown_as_dmsetup_would(running, tmp_path):
    image = golden.find("luks2-aes-xts-plain64-512-s4096")
    data = golden.unpack(image, tmp_path)["data"]
    secret, stdin = golden.unlock_arguments(image, {"data": data})
    running.cli("open", data, "v", *secret, stdin=stdin)
    dm, key = image["dm"], image["volume_key_hex"]
    head = f"0 {dm['sectors']} crypt aes-xts-plain64 "
    tail = f" 0 {data} {dm['offset']} 1 sector_size:4096\n"
    assert running.cli("table", "v").stdout == f"{head}{'0' * 128}{tail}"
    assert running.cli("table", "--show-keys", "v").stdout == f"{head}{key}{tail}"
    lines = running.cli("table", "v", "--json").json["lines"]
    assert lines == [{"head": head, "key_size": 64, "tail": tail[:-1]}]
    running.cli("luksSuspend", "v")
    result = running.run("table", "--show-keys", "v")
    assert (result.status, "no key in the engine" in result.stderr) == (2, True)
    running.cli("close", "v")
    assert running.run("table", "v").status == 4
