import pytest

from fusecrypt.dmcrypt.cipher_spec import CipherSpec
from fusecrypt.dmcrypt.engine.messages import TargetKind
from fusecrypt.dmcrypt.table import Segment, Table
from fusecrypt.dmcrypt.units import Sector
from fusecrypt.keystore.errors import ConfigError
from fusecrypt.keystore.keys import ProtectedKey

KEY = ProtectedKey(b"token")
CIPHER = CipherSpec.parse("aes-cbc-essiv:sha256")


def crypt(length, *, start=0, iv_offset=0):
    return Segment(
        start,
        length,
        TargetKind.CRYPT,
        backing_offset=4096,
        cipher=CIPHER,
        iv_offset=Sector(iv_offset),
        iv_large_sectors=True,
        key=KEY,
    )


def test_table_becomes_what_the_engine_takes():
    table = Table((crypt(8192), Segment(8192, 512, TargetKind.ZERO)), 512, 8704, read_only=True)
    device = table.to_device(17)
    assert (device.node, device.size, device.sector_size, device.read_only) == (17, 8704, 512, True)
    first, second = device.segments
    assert (first.start, first.length, first.backing_offset) == (0, 8192, 4096)
    assert (first.cipher, first.iv_offset, first.iv_large_sectors) == (
        "aes-cbc-essiv:sha256",
        0,
        True,
    )
    assert first.key == KEY
    assert (second.target, second.cipher, second.key) == (TargetKind.ZERO, "", None)
    assert device.pack()


@pytest.mark.parametrize(
    ("segment", "sector_size", "what"),
    [
        (crypt(8192), 1000, "sector size 1000"),
        (crypt(8704), 4096, "device size 8704"),
        (crypt(8192, iv_offset=4), 4096, "IV offset 4"),
    ],
)
def test_what_dm_crypt_refuses_is_refused(segment, sector_size, what):
    with pytest.raises(ConfigError, match=what):
        Table((segment,), sector_size, segment.length, read_only=False)


def test_gaps_are_our_own_bugs():
    with pytest.raises(AssertionError):
        Table((crypt(512, start=512),), 512, 1024, read_only=False)
