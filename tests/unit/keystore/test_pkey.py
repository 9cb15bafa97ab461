"""IBM Z's adapters: the driver over /dev/pkey and sysfs.

The machine is a fake; nobody has run this on the hardware.
"""

import gc
import platform
import socket
from dataclasses import replace

import pytest

from fusecrypt.keystore import ep11, kernel_cipher
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Register, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.drivers.pkey import Machine, PkeyCoprocessor
from fusecrypt.keystore.errors import (
    BusyError,
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
    NotFoundError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkey_device import PkeyDevice
from fusecrypt.keystore.tokens import KMF1_EXPORTABLE, KeyType
from fusecrypt.keystore.verification import make_mkvp, make_pattern, make_wkvp
from tests.unit.keystore.fake_machine import mkvps, wrap
from tests.unit.keystore.samples import (
    FIRST,
    REAL_XTS_KEY,
    SIZES,
    clear_key,
    master_key,
    put_adapter,
)

TYPES = (KeyType.CCA_AESDATA, KeyType.CCA_AESCIPHER)


@pytest.fixture
def coprocessors(coprocessors, fake, monkeypatch):
    """The adapters of a directory on that machine; the first of its queues is added."""
    monkeypatch.setattr("fusecrypt.keystore.drivers.pkey.find_machine", fake.machine)
    coprocessors.add(FIRST)
    return coprocessors


@pytest.mark.parametrize("key_type", TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_generated_key_is_of_the_machine_and_valid(coprocessors, key_type, bits, is_xts):
    key = coprocessors.generate(key_type, bits, is_xts=is_xts)
    assert (key.key_type, key.is_xts, key.mkvp) == (key_type, is_xts, make_mkvp(master_key(0)))
    found = coprocessors.validate(key)
    assert (found.clear_bits, found.register, found.apqns) == (
        bits * (2 if is_xts else 1),
        Register.CURRENT,
        (FIRST,),
    )
    assert coprocessors.get(FIRST).find_register(key) is Register.CURRENT


@pytest.mark.parametrize("key_type", TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_an_imported_key_has_the_pattern_of_the_clear_one(coprocessors, key_type, bits, is_xts):
    clear = clear_key(bits, is_xts)
    key = coprocessors.import_clear(key_type, clear, is_xts=is_xts)
    assert coprocessors.validate(key).pattern == make_pattern(clear, is_xts=is_xts)
    assert clear == clear_key(bits, is_xts)


def test_export_is_asked_of_the_firmware(coprocessors):
    key = coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True, is_exportable=True)
    assert [half.management1 for half in key.halves] == [KMF1_EXPORTABLE] * 2
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True, is_exportable=True)


@pytest.mark.parametrize(("is_old_kernel", "size"), [(False, 336), (True, 320)])
def test_ep11_keys_are_made_in_the_form_that_the_kernel_has(
    coprocessors, fake, is_old_kernel, size
):
    fake.is_old_kernel = is_old_kernel
    apqn = fake.add("05.0011", current=master_key(3), card_type="CEX8P")
    coprocessors.add(apqn)
    clear = clear_key(256, True)
    key = coprocessors.import_clear(KeyType.EP11_AES, clear, is_xts=True)
    assert (key.size, key.mkvp) == (2 * size, make_wkvp(master_key(3)))
    found = coprocessors.validate(key)
    assert (found.pattern, found.apqns) == (make_pattern(clear, is_xts=True), (apqn,))
    assert coprocessors.get(apqn).find_register(key) is Register.CURRENT
    made = coprocessors.generate(KeyType.EP11_AES, 128, is_xts=False, is_exportable=True)
    assert made.halves[0].attributes == 0x200C01
    foreign = ep11.wrap_key(KeyType.EP11_AES, clear, master_key(4), is_xts=True)
    assert coprocessors.get(apqn).find_register(foreign) is None


def test_a_device_that_makes_something_else_is_not_believed(coprocessors, monkeypatch):
    for token, text in ((b"", "none that is known"), (bytes(64), "none that is known"),
                        (REAL_XTS_KEY, "128 bytes, wanted up to 64")):  # fmt: skip
        monkeypatch.setattr(PkeyDevice, "generate", lambda *_, token=token: token)
        with pytest.raises(FormatError, match=text):
            coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=False)


def test_a_key_under_old_is_told_as_such(coprocessors, fake):
    key = wrap(KeyType.CCA_AESDATA, key=1)
    assert coprocessors.validate(key).register is Register.OLD
    assert coprocessors.get(FIRST).find_register(key) is Register.OLD
    (fake.root / "03.0039" / "mkvps").write_text(mkvps(master_key(0), None, master_key(5)))
    assert coprocessors.get(FIRST).find_register(wrap(KeyType.CCA_AESDATA, key=5)) is Register.NEW


def test_a_key_that_the_machine_has_no_master_key_for_is_told(coprocessors):
    with pytest.raises(MasterKeyChangedError, match="71ecf46a35bd8924"):
        coprocessors.validate(SecureKey(REAL_XTS_KEY))
    with pytest.raises(MasterKeyChangedError, match="71ecf46a35bd8924"):
        coprocessors.get(FIRST).validate(SecureKey(REAL_XTS_KEY))
    assert coprocessors.get(FIRST).find_register(SecureKey(REAL_XTS_KEY)) is None


def test_the_effective_key_goes_to_no_engine(coprocessors):
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="kernel's paes serves such a volume"):
        coprocessors.to_transport(key, bytes(32))


def test_a_virtual_adapter_with_the_same_master_key_serves_instead(coprocessors, directory):
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    put_adapter(directory, Apqn(9, 0), current=master_key(0))
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public_key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert coprocessors.to_transport(key, public_key).apqn == Apqn(9, 0)


def test_what_the_device_cannot_do_is_refused_by_name(coprocessors):
    key = wrap(KeyType.CCA_AESDATA)
    adapter = coprocessors.get(FIRST)
    for use, text in (
        (lambda: adapter.reencipher(key, Register.NEW), "zkey reencipher"),
        (lambda: adapter.reencipher(key, Register.OLD), "zkey reencipher"),
        (lambda: adapter.convert(key, KeyType.CCA_AESCIPHER), "zkey convert"),
        (lambda: adapter.restrict(wrap(KeyType.CCA_AESCIPHER)), "zkey import"),
        (lambda: coprocessors.load_random(FIRST), "Trusted Key Entry"),
        (lambda: coprocessors.set_new(FIRST), "Trusted Key Entry"),
        (lambda: coprocessors.clone(FIRST, FIRST, Register.CURRENT), "Trusted Key Entry"),
        (lambda: coprocessors.change([FIRST], Change.OFFLINE), "chzcrypt"),
        (lambda: coprocessors.generate(KeyType.CCA_AESDATA, 192, is_xts=True), "192 bits"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            use()
    assert adapter.reencipher(key, Register.CURRENT) == key


def test_an_adapter_is_added_once_and_not_beside_virtual_ones(coprocessors, fake):
    with pytest.raises(BusyError, match="exists"):
        coprocessors.add(FIRST)
    with pytest.raises(NotFoundError, match=r"08\.0000"):
        coprocessors.add(Apqn(8, 0))
    with pytest.raises(BusyError, match="card of the machine"):
        coprocessors.create(Apqn(3, 0x50))
    fake.add("07.0002", current=master_key(0))
    coprocessors.create(Apqn(7, 1))
    with pytest.raises(BusyError, match="virtual card"):
        coprocessors.add(Apqn(7, 2))
    coprocessors.remove(FIRST)
    assert [info.apqn for info in coprocessors.list_info()] == [Apqn(7, 1)]
    assert fake.root.joinpath("03.0039").exists()


def test_what_is_told_is_the_machines_and_what_is_stored_says_nothing_of_keys(coprocessors, fake):
    (info,) = coprocessors.list_info()
    assert (info.driver, info.serial, info.created) == ("pkey", "93AADFK7", "2026-01-31T12:00:00Z")
    assert info.current.mkvp == make_mkvp(master_key(0))
    (fake.root / "03.0039" / "online").write_text("0\n")
    assert coprocessors.list_info()[0].status is Status.OFFLINE
    with pytest.raises(CoprocessorError, match="offline"):
        coprocessors.get(FIRST).generate(KeyType.CCA_AESDATA, 256, is_xts=False)


def test_an_adapter_that_tells_nothing_keeps_no_other_from_being_told(coprocessors, fake):
    second = fake.add("05.0000", current=master_key(0))
    coprocessors.add(second)
    (fake.root / "03.0039" / "mkvps").write_text("AES NEW: - -\nAES CUR: - -\nAES OLD: - -\n")
    first, other = coprocessors.list_info()
    assert (first.status, "busy" in first.problem) == (Status.OFFLINE, True)
    assert other.status is Status.ONLINE
    assert coprocessors.validate(wrap(KeyType.CCA_AESDATA)).apqns == (second,)
    with pytest.raises(CoprocessorError, match="does not tell the master keys"):
        coprocessors.get(FIRST).validate(wrap(KeyType.CCA_AESDATA))


def test_an_adapter_that_was_taken_away_keeps_no_other_from_being_told(coprocessors, fake):
    fake.root.joinpath("03.0039").rename(fake.root / "gone")
    assert coprocessors.list_info()[0].status is Status.DECONFIGURED
    with pytest.raises(CoprocessorError, match="deconfig"):
        coprocessors.get(FIRST).generate(KeyType.CCA_AESDATA, 256, is_xts=False)


def test_a_card_without_such_keys_is_refused_before_it_is_asked(coprocessors, fake):
    apqn = fake.add("05.0000", current=master_key(0), card_type="CEX5C")
    coprocessors.add(apqn)
    fake.asked.clear()
    with pytest.raises(CoprocessorError, match="CEX5C that has no CCA-AESCIPHER keys"):
        coprocessors.get(apqn).generate(KeyType.CCA_AESCIPHER, 256, is_xts=False)
    assert 0x11 not in [number for number, _ in fake.asked]
    accelerator = fake.add("06.0000", card_type="CEX8A")
    coprocessors.add(accelerator)
    with pytest.raises(CoprocessorError, match="accelerator"):
        coprocessors.get(accelerator).generate(KeyType.CCA_AESDATA, 256, is_xts=False)


def test_halves_under_different_master_keys_are_made_again(coprocessors, fake, monkeypatch):
    real = PkeyDevice.generate
    made = []

    def generate(self, *words):
        token = real(self, *words)
        made.append(token)
        if len(made) == 1:
            fake.keys[FIRST] = (master_key(4), master_key(0))
        return token

    monkeypatch.setattr(PkeyDevice, "generate", generate)
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    assert (len(made), key.mkvp) == (4, make_mkvp(master_key(4)))


def test_only_ibm_z_has_such_adapters(coprocessors, fake, monkeypatch):
    key = wrap(KeyType.CCA_AESDATA)
    monkeypatch.setattr(
        "fusecrypt.keystore.drivers.pkey.find_machine", lambda: fake.machine("x86_64")
    )
    with pytest.raises(UnsupportedError, match=r"for IBM Z \(s390x\), and this machine is x86_64"):
        coprocessors.add(Apqn(3, 0x40))
    # The file may come from a backup of another machine: it is told as away.
    assert coprocessors.list_info()[0].status is Status.DECONFIGURED
    for use in (
        lambda: coprocessors.get(FIRST).validate(key),
        lambda: coprocessors.get(FIRST).generate(KeyType.CCA_AESDATA, 256, is_xts=False),
    ):
        with pytest.raises(UnsupportedError, match="this machine is x86_64"):
            use()
    assert not fake.asked


def test_the_machine_is_the_one_that_this_runs_on(directory):
    machine = Machine()
    assert (machine.name, str(machine.bus.root)) == (platform.machine(), "/sys/bus/ap/devices")
    if platform.machine() != "s390x":
        with pytest.raises(UnsupportedError, match=platform.machine()):
            Coprocessors(directory).add(FIRST)
        assert not list(directory.glob("*.adapter"))


def test_no_descriptor_is_left_open(coprocessors):
    from pathlib import Path

    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    coprocessors.validate(coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def has_af_alg():
    try:
        socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_af_alg(), reason="the kernel has no AF_ALG")
@pytest.mark.parametrize("is_xts", [True, False])
def test_the_kernels_pattern_is_that_of_the_key(is_xts):
    """With the clear key and `aes` in place of a token and `paes`: the same words to the kernel."""
    clear = clear_key(256, is_xts)
    wanted = make_pattern(clear, is_xts=is_xts)
    assert kernel_cipher.make_pattern(bytes(clear), is_xts=is_xts, cipher="aes") == wanted


def test_a_kernel_without_the_cipher_is_told(coprocessors, fake, monkeypatch):
    real = fake.machine()
    monkeypatch.setattr(
        "fusecrypt.keystore.drivers.pkey.find_machine",
        lambda: replace(real, make_pattern=kernel_cipher.make_pattern),
    )
    with pytest.raises(CoprocessorError, match=r"adapter 03\.0039: the kernel's cbc\(paes\): "):
        coprocessors.get(FIRST).validate(wrap(KeyType.CCA_AESDATA))


def test_a_driver_without_a_machine_given_asks_for_the_real_one(directory):
    put_adapter(directory, FIRST)
    assert PkeyCoprocessor(Coprocessors(directory)._store, FIRST).info().driver == "pkey"
