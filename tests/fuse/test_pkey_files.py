"""The files of dev/pkey: random keys as tokens, from crypttab lines and command lines."""

import os

import pytest

pytestmark = pytest.mark.fuse

DATA_SIZE = 256 * 1024
PKEY_LINES = [
    ("protkey/protkey_aes_256_xts", "xts", 1280),
    ("protkey/protkey_aes_128_xts", "xts", 1280),
    ("protkey/protkey_aes_xts_256", "xts", 896),
    ("protkey/protkey_aes_xts_128", "xts", 640),
    ("protkey/protkey_aes_256", "cbc", 640),
    ("ccadata/ccadata_aes_256_xts", "xts", 1024),
    ("ccacipher/ccacipher_aes_256_xts", "xts", 2176),
    ("ep11/ep11_aes_256_xts", "xts", 5376),
]


@pytest.mark.parametrize(("file", "mode", "bits"), PKEY_LINES)
def test_pkey_files_give_a_fresh_key_from_crypttab_and_command_line(instance, file, mode, bits):
    if not file.startswith("protkey/"):
        card_mode = "ep11" if file.startswith("ep11/") else "cca"
        instance.cli("adapter", "create", "03.0039", "--mode", card_mode)
    image = instance.write_file("image", b"\xa5" * DATA_SIZE)
    token = instance.runtime_dir / "dev" / "pkey" / file
    instance.start(f"a {image} {token} plain,cipher=paes-{mode}-plain64,size={bits}")
    assert token.stat().st_size * 8 == bits
    first = instance.device("a").read_bytes()
    instance.cli("close", "a")
    instance.cli("open", "a")
    second = instance.device("a").read_bytes()
    instance.cli("close", "a")
    instance.cli(
        *("open", "--type", "plain", "--cipher", f"paes-{mode}-plain64"),
        *("--key-size", bits, "--key-file", token, image, "b"),
    )
    third = instance.device("b").read_bytes()
    assert len({first, second, third}) == 3
    assert instance.stop() == 0


def test_a_line_written_for_ibm_z_means_our_own_keys(instance):
    image = instance.write_file("image", bytes(DATA_SIZE))
    sysfs = "/sys/devices/virtual/misc/pkey/protkey/protkey_aes_256_xts"
    instance.start(f"swap_disk {image} {sysfs} plain,cipher=paes-xts-plain64,size=1280")
    text = os.urandom(4096)
    with instance.device("swap_disk").open("r+b") as device:
        device.write(text)
    assert instance.device("swap_disk").read_bytes()[:4096] == text
    assert image.read_bytes()[:4096] != text
    assert instance.stop() == 0


def test_each_open_of_a_pkey_file_gives_one_token(instance):
    instance.cli("adapter", "create", "03.0039")
    instance.cli("adapter", "create", "05.0011", "--mode", "ep11")
    instance.start()
    for group, name, size in (
        ("protkey", "protkey_aes_256", 80),
        ("ccadata", "ccadata_aes_256", 64),
        ("ccacipher", "ccacipher_aes_128_xts", 272),
        ("ep11", "ep11_aes_192", 336),
    ):
        path = instance.runtime_dir / "dev" / "pkey" / group / name
        with path.open("rb", buffering=0) as one, path.open("rb", buffering=0) as other:
            first, second = one.read(1000), other.read(1000)
            assert len(first) == len(second) == size
            assert first != second
            assert one.read(1000) == b""
            one.seek(0)
            assert one.read(1000) == first
        with pytest.raises(PermissionError):
            os.open(path, os.O_WRONLY)
        with pytest.raises(OSError, match="Operation not permitted"):
            path.unlink()
    assert instance.stop() == 0


def test_without_an_adapter_cca_files_say_no_such_device(instance):
    instance.start()
    path = instance.runtime_dir / "dev" / "pkey" / "ccadata" / "ccadata_aes_256"
    with pytest.raises(OSError, match="No such device"):
        path.read_bytes()
    assert instance.stop() == 0


def test_a_protected_key_is_void_in_another_session(instance):
    image = instance.write_file("image", bytes(DATA_SIZE))
    instance.start()
    path = instance.runtime_dir / "dev" / "pkey" / "protkey" / "protkey_aes_256_xts"
    copy = instance.write_file("token", path.read_bytes())
    plain = ("open", "--type", "plain", "--cipher", "paes-xts-plain64", "--key-size", "1280")
    instance.cli(*plain, "--key-file", copy, image, "v")
    assert instance.stop() == 0
    instance.start()
    result = instance.run(*plain, "--key-file", copy, image, "v")
    assert result.status == 6, result
    assert "another session" in result.stderr
    assert instance.stop() == 0
