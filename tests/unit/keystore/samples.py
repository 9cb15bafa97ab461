"""Keys and registers that several tests of this folder use."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fusecrypt.keystore.adapter import Adapter, MasterKeys
from fusecrypt.keystore.adapter_store import AdapterStore
from fusecrypt.keystore.coprocessor import AdapterInfo, Apqn, Fill, Register, RegisterState
from fusecrypt.keystore.sealing import HostKey
from fusecrypt.keystore.verification import make_mkvp
from tests.lab import tokens

#: A CCA-AESDATA XTS key of a real system, its master key unknown: the output of `zkey -V` in
#: https://github.com/coreos/ignition/issues/1693.
REAL_XTS_KEY = bytes.fromhex(
    "010000000400c0cc 71ecf46a35bd8924"
    "b3975811a6fb51f1ee0545404e76e99a98301eca5cfed7c73460fff4ea82f3ec"
    "0000000000000000 0100 0020 58cd01c7"
    "010000000400c097 71ecf46a35bd8924"
    "c0cc8807dbc8e664bf33984ca9203a905fd1300919d57bdf087c0eba6b07eec9"
    "0000000000000000 0100 0020 9fbf28f7"
)
REAL_MKVP = bytes.fromhex("71ecf46a35bd8924")

FIRST = Apqn(3, 0x39)
SECOND = Apqn(3, 0x40)
#: (key_bits, is_xts) of every kind of AES key.
SIZES = [(128, False), (192, False), (256, False), (128, True), (256, True)]


def clear_key(key_bits: int, is_xts: bool) -> bytearray:
    """00 01 02 …, as long as asked for."""
    return bytearray(range(key_bits // 8 * (2 if is_xts else 1)))


def master_key(first: int) -> bytearray:
    """32 bytes that count up from ``first``."""
    return bytearray(range(first, first + 32))


def pin(text: str = tokens.PIN) -> bytearray:
    """The PIN of the tokens that tests make, or another."""
    return bytearray(text.encode())


def store_of(directory: Path) -> AdapterStore:
    return AdapterStore(directory, HostKey(directory / "host.key"))


def put_adapter(
    directory: Path, apqn: Apqn, changes: Mapping[str, object] | None = None, **registers: bytearray
) -> AdapterInfo:
    """Store an adapter with these master keys (new, current, old), in place of one that is.

    ``changes`` are other fields of its information.
    """
    keys = MasterKeys()
    states = {
        "new": RegisterState(Fill.EMPTY),
        "current": RegisterState(Fill.INVALID),
        "old": RegisterState(Fill.INVALID),
    }
    for name, key in registers.items():
        keys.put(Register(name.upper()), key)
        fill = Fill.FULL if name == "new" else Fill.VALID
        states[name] = RegisterState(fill, make_mkvp(key))
    info = AdapterInfo(
        apqn=apqn, serial="93AADFK7", is_online=True, created="2026-01-31T12:00:00Z", **states
    )
    info = replace(info, **(changes or {}))
    store = store_of(directory)
    with store.locked():
        store.host_key.make()
        store.replace(Adapter(info, "soft", keys))
    return info
