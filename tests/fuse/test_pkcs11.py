"""A PKCS#11 token as adapter: from its PIN to volumes whose key nobody has seen."""

import os
import random
import shutil
import signal
import sys

import pytest

from fusecrypt.keystore.verification import make_pattern
from tests.fuse.test_paes import (
    DATA_SIZE,
    OFFSET,
    PASSPHRASE,
    check_data,
    check_writes,
    make_key,
    real_format,
)
from tests.lab import cryptsetup, tokens

pytestmark = pytest.mark.fuse

BITS = 1536
APQN = "03.0039"
BESIDE_OPENCRYPTOKI = tokens.BESIDE_OPENCRYPTOKI in os.environ


@pytest.fixture
def uri(instance):
    """A new token; of openCryptoki, the one that there is."""
    if BESIDE_OPENCRYPTOKI:
        return tokens.get_opencryptoki_uri()
    hsm = tokens.SoftHsm(instance.directory)
    instance.environment.update(hsm.environment)
    return hsm.make("Token1")


@pytest.fixture
def pin_file(instance):
    return instance.write_file("pin", tokens.PIN.encode() + b"\n")


def create(instance, uri, pin_file, *options, apqn=APQN):
    return instance.cli(
        *("adapter", "create", apqn, "--mode", "pkcs11"),
        *("--uri", f"{uri}&pin-source={pin_file}", *options),
    )


@pytest.fixture
def adapter(instance, uri, pin_file):
    """An instance with a token as its adapter, whose PIN nobody has but the keystored."""
    create(instance, uri, pin_file)
    pin_file.unlink()
    return instance


@pytest.fixture
def passphrase(instance):
    return instance.write_file("passphrase", PASSPHRASE)


def test_a_token_is_shown_with_its_limits(adapter, uri):
    shown = adapter.cli("adapter", "show", APQN)
    (info,) = adapter.cli("adapter", "list", "--json").json["adapters"]
    assert (info["mode"], info["type"], info["status"]) == ("pkcs11", "PKCS11", "online")
    assert (info["problem"], info["clear_allowed"]) == (None, False)
    for text in (uri, "a PKCS#11 token", "nowhere but in it", *info["limits"]):
        assert text in shown.stdout
    assert len(info["limits"]) == 1
    assert ("AES-CBC-PAD" if BESIDE_OPENCRYPTOKI else "SHA-1") in info["limits"][0]
    listed = adapter.cli("lszcrypt", "-V").stdout
    assert "PKCS11" in listed
    assert "Token" in listed
    assert "PKCS11-AES secure keys" in adapter.cli("lszcrypt", "-c", "03").stdout


def test_a_volume_of_the_real_cryptsetup_opens_with_the_key_of_a_token(adapter, passphrase):
    clear = random.Random(3).randbytes(64)
    key = make_key(adapter, "k", clear, "PKCS11-AES")
    assert len(key.read_bytes()) * 8 == BITS
    validated = adapter.cli("zkey", "validate", key).stdout
    assert make_pattern(bytearray(clear), is_xts=True)[:32] in validated.replace("\n", " ")
    image = real_format(adapter.directory / "image", passphrase, key, BITS)
    adapter.cli("open", "-d", passphrase, image, "v")
    status = adapter.cli("status", "v", "--json").json
    assert (status["cipher"], status["key_bits"]) == ("paes-xts-plain64", BITS)
    assert status["key_location"] == f"PKCS11-AES by adapter {APQN}"
    check_data(adapter, image, "v", clear, offset=OFFSET)
    adapter.cli("adapter", "bump-session")  # with another RSA key
    check_writes(adapter, image, "v", clear, offset=OFFSET)
    result = adapter.run("table", "--show-keys", "v")
    assert result.status != 0
    assert clear.hex()[:32] not in result.stdout


def test_a_random_key_and_cbc_and_crypttab_and_another_master_key(adapter, passphrase):
    clear = random.Random(4).randbytes(32)
    cbc = make_key(adapter, "cbc", clear, "PKCS11-AES", xts=False)
    image = real_format(adapter.directory / "cbc.img", passphrase, cbc, 768, "paes-cbc-plain64")
    key = adapter.directory / "random.skey"
    adapter.cli("zkey", "generate", key, "-x", "-K", "PKCS11-AES")
    own = adapter.directory / "own.img"
    with own.open("wb") as file:
        file.truncate(OFFSET + DATA_SIZE)
    adapter.cli(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", key),
        *("--key-size", BITS, "--pbkdf", "pbkdf2", "--iter-time", "10"),
        *("--offset", "8192", "--sector-size", "512", own, passphrase),
    )
    assert cryptsetup.volume_key(own, "--key-file", passphrase) == key.read_bytes()
    adapter.cli("adapter", "master-key", "generate", APQN)
    adapter.cli("zkey-cryptsetup", "reencipher", own, "--to-new", "--in-place", "-q",
                "--key-file", passphrase)  # fmt: skip
    adapter.cli("adapter", "master-key", "set", APQN)
    assert cryptsetup.volume_key(own, "--key-file", passphrase) != key.read_bytes()
    with (adapter.directory / "plain.img").open("wb") as file:
        file.truncate(DATA_SIZE)
    adapter.start(
        f"cbc {image} {passphrase} luks",
        f"own {own} {passphrase} luks",
        f"plain {adapter.directory / 'plain.img'} {key} "
        f"plain,cipher=paes-xts-plain64,size={BITS},hash=plain",
    )
    check_data(adapter, image, "cbc", clear, offset=OFFSET, cipher="cbc")
    text = os.urandom(DATA_SIZE)
    for name in ("own", "plain"):
        with adapter.device(name).open("r+b") as device:
            device.write(text)
            os.fsync(device.fileno())
    stored = own.read_bytes()[OFFSET:]
    assert stored != text
    assert stored == (adapter.directory / "plain.img").read_bytes()  # one key, both IVs alike
    assert adapter.device("own").read_bytes() == text


def test_what_is_wrong_with_a_pin_is_said_and_nothing_is_made(instance, uri, pin_file):
    def refuse(status, said, uri, stdin=b""):
        words = ("adapter", "create", APQN, "--mode", "pkcs11", "--uri", uri)
        result = instance.run(*words, stdin=stdin)
        assert result.status == status, result.stderr
        assert said in result.stderr
        assert tokens.PIN not in result.stderr
        assert instance.cli("adapter", "list", "--json").json["adapters"] == []

    refuse(8, "pin-value", f"{uri}&pin-value={tokens.PIN}")
    pin_file.chmod(0o640)
    refuse(4, "mode 0640 lets others at it", f"{uri}&pin-source={pin_file}")
    refuse(4, "no-such-file", f"{uri}&pin-source=/no-such-file")
    refuse(1, "nothing", uri, b"\n")
    refuse(6, "PinIncorrect", uri, b"27182818\n")
    missing = uri.replace("token=", "token=not-")
    refuse(6, "is not there", missing, tokens.PIN.encode())
    instance.cli(
        *("adapter", "create", APQN, "--mode", "pkcs11", "--uri", uri),
        stdin=tokens.PIN.encode() + b"\n",
    )
    for path in instance.directory.rglob("*"):
        if path.is_file() and path != pin_file:
            assert tokens.PIN.encode() not in path.read_bytes(), path


@pytest.mark.skipif(BESIDE_OPENCRYPTOKI, reason="its slot daemon stays")
def test_a_token_that_is_gone_stops_what_needs_it_and_nothing_else(adapter, passphrase):
    clear = random.Random(5).randbytes(64)
    key = make_key(adapter, "k", clear, "PKCS11-AES")
    image = real_format(adapter.directory / "image", passphrase, key, BITS)
    other = shutil.copy(image, adapter.directory / "other")
    adapter.start()
    adapter.cli("open", "-d", passphrase, image, "v")
    store = adapter.directory / "tokens"
    store.rename(adapter.directory / "pulled")
    store.mkdir()
    # SoftHSM keeps a token in mind for as long as a process; the next keystored misses it.
    os.kill(adapter.pid("fusecrypt-keystored"), signal.SIGTERM)
    for words in (
        ("open", "-d", passphrase, other, "w"),
        ("zkey", "generate", "x.skey", "-K", "PKCS11-AES"),
    ):
        result = adapter.run(*words)
        assert result.status == 6, result.stderr
        assert "Token1" in result.stderr
    shown = adapter.cli("adapter", "show", APQN).stdout
    assert "offline" in shown
    assert "problem:" in shown
    check_writes(adapter, image, "v", clear, offset=OFFSET)
    store.rmdir()
    (adapter.directory / "pulled").rename(store)
    adapter.cli("open", "-d", passphrase, other, "w")
    assert adapter.cli("adapter", "list", "--json").json["adapters"][0]["problem"] is None


def test_a_removed_adapter_leaves_the_token_as_it_is(adapter, uri):
    key = make_key(adapter, "k", bytes(range(64)), "PKCS11-AES")
    saved = adapter.cli("adapter", "backup", "saved", stdin=PASSPHRASE + b"\n")
    assert "and not its master keys" in saved.stderr
    made = adapter.cli("adapter", "master-key", "generate", APQN)
    assert "in its token only" in made.stderr
    adapter.cli("adapter", "master-key", "clear-new", APQN)
    adapter.cli("adapter", "remove", APQN, "-q")
    assert adapter.run("zkey", "validate", key).status == 6
    create(adapter, uri, adapter.write_file("pin", tokens.PIN.encode()), apqn="07.0001")
    assert "Valid" in adapter.cli("zkey", "validate", key).stdout


@pytest.mark.root
@pytest.mark.skipif(BESIDE_OPENCRYPTOKI, reason="it is there")
def test_the_same_beside_opencryptoki():
    tokens.run_beside_opencryptoki(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *("-k", "shown or random", __file__),
        ]
    )
