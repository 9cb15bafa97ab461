"""IBM Z's adapters: the requests of /dev/pkey byte for byte, and sysfs.

The machine is a fake; nobody has run this on the hardware.
"""

import errno
import struct

import pytest

from fusecrypt.keystore import pkey_device
from fusecrypt.keystore.ap_bus import ApBus, parse_registers
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register, RegisterState, Status
from fusecrypt.keystore.errors import (
    AccessError,
    CoprocessorError,
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkey_device import Match, PkeyDevice, PkeyType
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp, make_wkvp
from tests.unit.keystore.fake_machine import ep11_mkvps, mkvps, wrap
from tests.unit.keystore.samples import FIRST, clear_key, master_key


@pytest.fixture
def device(fake):
    with fake.machine().open_device() as device:
        yield device


# What a compiler of a 64-bit machine makes of pkey.h: number, size.
@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (pkey_device.GENSECK2, 0xC028_7011),
        (pkey_device.CLR2SECK2, 0xC048_7012),
        (pkey_device.VERIFYKEY2, 0xC020_7017),
        (pkey_device.APQNS4K, 0xC020_701B),
        (pkey_device.APQNS4KT, 0xC058_701C),
        (pkey_device.KBLOB2PROTK3, 0xC030_701D),
    ],
)
def test_requests_have_the_numbers_of_pkey_h(request_, wanted):
    assert pkey_device.make_number(request_) == wanted


def test_a_key_is_generated_with_this_structure(device, fake):
    token = device.generate(FIRST, PkeyType.CCA_CIPHER, 192, 0xF0C8)
    ((number, asked),) = fake.asked
    assert number == 0x11
    # one APQN, CCA_CIPHER, 192 bits, flags | pointer | room, padding
    assert asked[8:24] == bytes.fromhex("00000001 00000002 000000c0 0000f0c8")
    assert asked[32:] == bytes.fromhex("00000400 00000000")
    assert asked[:8] != bytes(8) != asked[24:32]
    assert len(token) == 128  # of 192 bits, without padding
    assert SecureKey(token.ljust(136, b"\0")).clear_bits == 192


def test_a_clear_key_is_imported_with_this_structure_which_is_wiped(device, fake):
    clear = clear_key(128, False)
    device.import_clear(FIRST, PkeyType.CCA_DATA, clear)
    ((number, asked),) = fake.asked
    assert number == 0x12
    assert asked[8:56] == bytes.fromhex(
        "00000001 00000001 00000080 00000000 000102030405060708090a0b0c0d0e0f" + "00" * 16
    )
    assert asked[64:] == bytes.fromhex("00000400 00000000")
    assert not any(fake.content)
    assert clear == clear_key(128, False)


def test_a_key_is_verified_with_this_structure(device, fake):
    key = wrap(KeyType.CCA_AESDATA)
    verified = device.verify(FIRST, key.token)
    assert verified == pkey_device.Verified(1, 256, Match.CURRENT)
    assert fake.asked[0][1][8:] == bytes.fromhex("00000040 0003 0039" + "00" * 16)
    old = wrap(KeyType.CCA_AESCIPHER, key=1)
    assert device.verify(FIRST, old.token) == pkey_device.Verified(2, 256, Match.ALTERNATE)
    assert device.verify(FIRST, wrap(KeyType.CCA_AESDATA, key=7).token) is None
    assert device.verify(Apqn(4, 0), key.token) is None


def test_adapters_are_listed_with_these_structures(device, fake):
    fake.add("03.0040", current=master_key(0))
    fake.add("04.0001", current=master_key(2), card_type="CEX5C")
    token = wrap(KeyType.CCA_AESDATA).token
    assert device.list_for_key(token, Match.CURRENT) == (FIRST, Apqn(3, 0x40))
    (_, first), (_, second) = fake.asked
    assert first[8:] == bytes.fromhex("00000040 00000002" + "00" * 16)
    assert second[8:16] == first[8:16]
    assert second[24:] == bytes.fromhex("00000002 00000000")
    assert device.list_for_key(token, Match.ALTERNATE) == ()
    fake.asked.clear()
    mkvp = make_mkvp(master_key(2))
    assert device.list_for_type(PkeyType.CCA_DATA, mkvp) == (Apqn(4, 1),)
    (_, first), (_, second) = fake.asked
    assert first == b"\0\0\0\1" + mkvp + bytes(24 + 32) + b"\0\0\0\2" + bytes(16)
    assert second[:72] == first[:72]
    assert second[80:] == bytes.fromhex("00000001 00000000")
    assert len(device.list_for_type(PkeyType.CCA_DATA)) == 3
    assert len(device.list_for_type(PkeyType.CCA_CIPHER)) == 2  # a CEX5 has none


def test_a_protected_key_is_tried_with_this_structure(device, fake):
    key = wrap(KeyType.CCA_AESCIPHER, 192)
    assert device.try_protecting(FIRST, key.token) == pkey_device.Protectable(2, 192)
    ((number, asked),) = fake.asked
    assert number == 0x1D
    assert asked[8:16] == bytes.fromhex("00000088 00000000")  # room of a file's token, padding
    assert asked[24:40] == bytes.fromhex("00000001 00000000 00000100 00000000")


def test_a_list_that_grows_is_asked_for_again(device, fake):
    for i in range(3):
        fake.add(f"05.{i:04x}", current=master_key(0))
    fake.hidden = 1
    assert len(device.list_for_type(PkeyType.CCA_DATA)) == 4
    assert [number for number, _ in fake.asked] == [0x1C] * 3
    fake.fail[0x1C] = errno.ENOSPC
    with pytest.raises(CoprocessorError, match="list adapters: No space"):
        device.list_for_type(PkeyType.CCA_DATA)


def test_a_list_that_never_stops_growing_is_given_up():
    """Each answer wants one more than there is room for."""

    def ioctl(_fd, _request, content):
        room = int.from_bytes(content[80:84], "big")
        content[80:84] = (room + 1).to_bytes(4, "big")
        if room:
            raise OSError(errno.ENOSPC, "no room")

    with (
        PkeyDevice("/dev/null", ioctl) as device,
        pytest.raises(CoprocessorError, match="does not stop changing"),
    ):
        device.list_for_type(PkeyType.CCA_DATA)


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENODEV, CoprocessorError, "no adapter did it"),
        (errno.EINVAL, UnsupportedError, "refuses this type or size"),
        (errno.ENOTTY, UnsupportedError, "too old"),
        (errno.EBUSY, CoprocessorError, "busy"),
        (errno.EIO, CoprocessorError, "Input/output"),
    ],
)
def test_what_the_kernel_says_is_told_in_words(device, fake, number, kind, text):
    fake.fail = dict.fromkeys((0x11, 0x12, 0x1C, 0x1D), number)
    token = wrap(KeyType.CCA_AESDATA).token
    for ask in (
        lambda: device.generate(FIRST, PkeyType.CCA_DATA, 256),
        lambda: device.import_clear(FIRST, PkeyType.CCA_DATA, clear_key(256, False)),
        lambda: device.list_for_type(PkeyType.CCA_DATA),
        lambda: device.try_protecting(FIRST, token),
    ):
        with pytest.raises(kind, match=text):
            ask()


def test_a_kernel_that_tells_impossible_sizes_is_not_believed():
    def ioctl(_fd, _request, content):
        content[32:36] = struct.pack(">I", 5000)

    with PkeyDevice("/dev/null", ioctl) as device, pytest.raises(CoprocessorError, match="5000"):
        device.generate(FIRST, PkeyType.CCA_DATA, 256)


def test_the_real_ioctl_gets_to_the_kernel_and_its_error_back(tmp_path):
    """A terminal's request on a plain file: the call is made, and refused as it should be."""
    path = tmp_path / "file"
    path.touch()
    with (
        PkeyDevice(str(path)) as device,
        pytest.raises(UnsupportedError, match="too old for this request"),
    ):
        device.generate(FIRST, PkeyType.CCA_DATA, 256)
    with pytest.raises(AccessError, match="No such file"):
        PkeyDevice(str(tmp_path / "none"))


def test_a_queue_is_told_as_sysfs_has_it(fake):
    bus = ApBus(fake.root)
    info = bus.read(FIRST, "2026-01-31T12:00:00Z")
    assert (info.type, info.mode, info.serial, info.status) == (
        *("CEX8C", "cca", "93AADFK7"),
        Status.ONLINE,
    )
    assert info.current == RegisterState(Fill.VALID, make_mkvp(master_key(0)))
    assert info.old == RegisterState(Fill.VALID, make_mkvp(master_key(1)))
    assert info.new == RegisterState(Fill.EMPTY)
    assert (info.requests, info.level) == (3, 8)
    fake.add("0a.0011", card_type="CEX7A")
    assert bus.list_apqns() == (FIRST, Apqn(10, 0x11))
    assert bus.read(Apqn(10, 0x11), "").mode == "accel"
    assert ApBus(fake.root / "none").list_apqns() == ()
    with pytest.raises(NotFoundError, match=r"04\.0000"):
        bus.read(Apqn(4, 0), "")


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"card_online": "0"}, Status.OFFLINE),
        ({"online": "0"}, Status.OFFLINE),
        ({"card_config": "0"}, Status.DECONFIGURED),
        ({"config": "0"}, Status.DECONFIGURED),
        ({"card_chkstop": "1"}, Status.CHECKSTOP),
        ({"chkstop": "1"}, Status.CHECKSTOP),
    ],
)
def test_what_keeps_a_queue_from_work_is_told(fake, attributes, status):
    apqn = fake.add("04.0000", current=master_key(0), **attributes)
    assert ApBus(fake.root).read(apqn, "").status is status


@pytest.mark.parametrize(
    ("attributes", "error", "text"),
    [
        ({"card_type": "CEX8X"}, UnsupportedError, "CEX8X"),
        ({"card_type": "CEX8P", "mkvps": mkvps()}, FormatError, "WK registers CURRENT, NEW"),
        ({"card_type": "CEX2C"}, UnsupportedError, "CEX2C"),
        ({"card_type": ""}, UnsupportedError, "wanted"),
        ({"card_online": "yes"}, FormatError, "wanted 0 or 1"),
        ({"card_serialnr": "a b"}, FormatError, "serialnr"),
        ({"mkvps": "AES NEW: empty 0x0000000000000000"}, FormatError, "CURRENT, OLD"),
        ({"mkvps": mkvps().replace("AES CUR: invalid", "AES CUR: odd")}, FormatError, "odd"),
        ({"mkvps": mkvps(master_key(0)).replace("0x49", "0y49")}, FormatError, "0y49"),
        ({"mkvps": "AES NEW: - -\nAES CUR: - -\nAES OLD: - -\n"}, CoprocessorError, "busy"),
    ],
)
def test_sysfs_that_says_something_else_is_refused(fake, attributes, error, text):
    apqn = fake.add("04.0000", current=master_key(0), **attributes)
    with pytest.raises(error, match=text):
        ApBus(fake.root).read(apqn, "")


def test_a_partly_loaded_register_has_no_pattern():
    text = mkvps(master_key(0)).replace("AES NEW: empty", "AES NEW: partial")
    registers = parse_registers(text, "cca", "mkvps")
    assert registers[Register.NEW] == RegisterState(Fill.PARTIAL)


def test_the_attribute_of_an_ep11_queue_is_told_with_half_of_its_pattern():
    text = (  # of a CEX6 queue
        "WK CUR: valid 0xef490ddfce10b330b86cfe6db2ae2db98d65e8c19d9cb7a1b378dec93e398eb0\n"
        "WK NEW: empty -\n"
    )
    assert parse_registers(text, "ep11", "mkvps") == {
        Register.CURRENT: RegisterState(
            Fill.VALID, bytes.fromhex("ef490ddfce10b330b86cfe6db2ae2db9")
        ),
        Register.NEW: RegisterState(Fill.EMPTY),
    }
    loaded = parse_registers(ep11_mkvps(None, master_key(0), "uncommitted"), "ep11", "mkvps")
    assert loaded[Register.NEW] == RegisterState(Fill.UNCOMMITTED, make_wkvp(master_key(0)))
    assert loaded[Register.CURRENT] == RegisterState(Fill.INVALID)
    assert parse_registers("WK CUR: - -\nWK NEW: - -\n", "ep11", "mkvps") is None
    with pytest.raises(FormatError, match="WK OLD"):
        parse_registers(text + "WK OLD: invalid -\n", "ep11", "mkvps")
