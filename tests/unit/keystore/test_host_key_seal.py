"""The host key, sealed: what a thief of the state has, and a crash while it is changed."""

import contextlib
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.keystore import sealing
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.envelope import Envelope
from fusecrypt.keystore.errors import (
    ConfigError,
    CoprocessorError,
    FormatError,
    MapperError,
    NoKeyError,
)
from fusecrypt.keystore.kept_bytes import KeptBytes
from fusecrypt.keystore.passphrase_kdf import PassphraseKdf
from fusecrypt.keystore.seal_state import SealMethod
from fusecrypt.keystore.tpm import check_pcrs
from tests.lab.swtpm import extend, find_missing, running_tpm
from tests.unit.keystore.samples import FIRST, SECOND, master_key, put_adapter

PASSPHRASE = bytearray(b"a passphrase")
TPM2, CREDENTIAL, FILE = SealMethod.TPM2, SealMethod.CREDENTIAL, SealMethod.HOST_KEY_FILE


@pytest.fixture(autouse=True, scope="module")
def cheap():
    """A KDF that takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecrypt.keystore.passphrase_kdf._COST", (1 << 4, 8, 1))
        yield


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "credentials"
    path.mkdir()
    (path / "fusecrypt-keystore").write_bytes(os.urandom(48))
    (path / "fusecrypt-keystore").chmod(0o400)
    return path


@pytest.fixture
def tpm(tmp_path, monkeypatch):
    if find_missing():
        pytest.skip(f"{find_missing()} is not installed")
    with running_tpm(tmp_path / "tpm") as tcti:
        monkeypatch.setenv("TPM2TOOLS_TCTI", tcti)
        yield tcti


@pytest.fixture
def filled(directory):
    """Adapters with known master keys, sealed by a host key in a file."""
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(2))
    put_adapter(directory, SECOND, current=master_key(3), new=master_key(4))
    return Coprocessors(directory).list_info()


def contents(directory):
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def check_a_thief_has_nothing(directory, tmp_path, host_key, **places):
    """Neither in the files, nor with the host key of before, nor by asking."""
    stolen = tmp_path / "stolen"
    shutil.rmtree(stolen, ignore_errors=True)
    shutil.copytree(directory, stolen)
    content = contents(stolen)
    for secret in (host_key, *(bytes(master_key(first)) for first in (1, 2, 3, 4))):
        assert secret not in content
        assert secret.hex().encode() not in content
    assert not (stolen / "host.key").exists()
    with pytest.raises(MapperError):
        Coprocessors(stolen, **places).list_info()
    (stolen / "host.key.sealed").unlink()
    (stolen / "host.key").write_bytes(host_key)
    (stolen / "host.key").chmod(0o600)
    with pytest.raises(FormatError, match="sealed by host key"):
        Coprocessors(stolen).list_info()


def test_a_passphrase_seals_and_is_asked_for_after_a_start(directory, tmp_path, filled):
    host_key = (directory / "host.key").read_bytes()
    ours = Coprocessors(directory)
    assert ours.host_key.get_state().method is FILE
    given = bytearray(PASSPHRASE)
    ours.reseal(SealMethod.PASSPHRASE, given)
    assert given == PASSPHRASE  # the caller's to wipe
    state = ours.host_key.get_state()
    assert (state.method, state.is_locked, state.has_plain_file) == ("passphrase", False, False)
    assert ours.list_info() == filled
    check_a_thief_has_nothing(directory, tmp_path, host_key)

    later = Coprocessors(directory)
    assert later.host_key.get_state().is_locked
    for use in (later.list_info, lambda: later.create(SECOND)):
        with pytest.raises(CoprocessorError, match="locked; 'fusecrypt adapter unlock'"):
            use()
    with pytest.raises(NoKeyError, match="does not open with this passphrase"):
        later.host_key.unlock(bytearray(b"another"))
    with pytest.raises(CoprocessorError, match="locked"):
        later.list_info()
    later.host_key.unlock(bytearray(PASSPHRASE))
    assert later.list_info() == filled
    later.change([FIRST], Change.OFFLINE)
    later.host_key.lock()
    with pytest.raises(CoprocessorError, match="locked"):
        later.list_info()
    ours.change([FIRST], Change.ONLINE)
    assert ours.list_info() == filled
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_credential_of_systemd_seals(directory, tmp_path, filled, credentials):
    host_key = (directory / "host.key").read_bytes()
    ours = Coprocessors(directory, credentials=credentials)
    ours.reseal(CREDENTIAL, bytearray())
    assert Coprocessors(directory, credentials=credentials).list_info() == filled
    check_a_thief_has_nothing(directory, tmp_path, host_key)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/fusecrypt-keystore").write_bytes(os.urandom(48))
    (tmp_path / "other/fusecrypt-keystore").chmod(0o400)
    check_a_thief_has_nothing(directory, tmp_path, host_key, credentials=tmp_path / "other")
    with pytest.raises(CoprocessorError, match="credential fusecrypt-keystore: none"):
        Coprocessors(directory).list_info()
    with pytest.raises(ConfigError, match="no passphrase is wanted"):
        ours.host_key.unlock(bytearray(b"x"))


def test_a_credential_that_is_no_key_is_refused(directory, filled, credentials):
    path = credentials / "fusecrypt-keystore"
    path.chmod(0o600)
    path.write_bytes(b"password")
    ours = Coprocessors(directory, credentials=credentials)
    before = contents(directory)
    with pytest.raises(ConfigError, match="has 8 bytes, wanted 32 or more"):
        ours.reseal(CREDENTIAL, bytearray())
    path.unlink()
    with pytest.raises(CoprocessorError, match="missing"):
        ours.reseal(CREDENTIAL, bytearray())
    assert contents(directory) == before
    assert ours.list_info() == filled


def test_a_tpm_seals_and_its_pcrs_are_wanted(directory, tmp_path, filled, tpm, monkeypatch):
    host_key = (directory / "host.key").read_bytes()
    ours = Coprocessors(directory)
    ours.reseal(TPM2, bytearray())
    assert Coprocessors(directory).list_info() == filled
    with running_tpm(tmp_path / "another") as other:
        monkeypatch.setenv("TPM2TOOLS_TCTI", other)
        check_a_thief_has_nothing(directory, tmp_path, host_key)
        with pytest.raises(CoprocessorError, match="TPM: tpm2_load"):
            Coprocessors(directory).list_info()
    monkeypatch.setenv("TPM2TOOLS_TCTI", tpm)
    # With PCRs: another boot, and it is the same TPM but does not open.
    ours.reseal(TPM2, bytearray(), "7,16")
    extend(tpm, 1)
    assert Coprocessors(directory).list_info() == filled
    extend(tpm, 16)
    with pytest.raises(CoprocessorError, match=r"TPM: tpm2_unseal: .*policy"):
        Coprocessors(directory).list_info()
    assert ours.list_info() == filled  # opened before
    ours.reseal(TPM2, bytearray(), "sha256:16")
    assert Coprocessors(directory).list_info() == filled


def test_without_tpm_or_tools_nothing_changes(directory, filled, monkeypatch, tmp_path):
    before = contents(directory)
    ours = Coprocessors(directory)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with monkeypatch.context() as nowhere:
            nowhere.setattr("tempfile.tempdir", f"{tmp_path}/nowhere")
            with pytest.raises(CoprocessorError, match="TPM: no temporary directory"):
                ours.reseal(TPM2, bytearray())
        with pytest.raises(CoprocessorError, match="tpm2_createprimary is missing"):
            ours.reseal(TPM2, bytearray())
    if not find_missing():
        monkeypatch.setenv("TPM2TOOLS_TCTI", f"swtpm:path={tmp_path}/nobody")
        with pytest.raises(CoprocessorError, match="TPM: tpm2_createprimary: "):
            ours.reseal(TPM2, bytearray())
    assert contents(directory) == before
    assert ours.list_info() == filled


@pytest.mark.parametrize("text", ["24", "sha256:", "7;rm", "md5:1", "-1", "sha256:7+sha1:1", "a"])
def test_what_is_no_choice_of_pcrs_is_refused(directory, filled, text):
    with pytest.raises(ConfigError, match="PCRs"):
        check_pcrs(text)
    with pytest.raises(ConfigError, match="PCRs"):
        Coprocessors(directory).reseal(TPM2, bytearray(), text)
    assert Coprocessors(directory).list_info() == filled


def test_what_seals_can_be_changed_and_taken_off(directory, filled, credentials):
    ours = Coprocessors(directory, credentials=credentials)
    ours.reseal(SealMethod.PASSPHRASE, bytearray(PASSPHRASE))
    first = (directory / "host.key.sealed").read_bytes()
    ours.reseal(SealMethod.PASSPHRASE, bytearray(b"another"))
    # An old copy of the sealed host key, with its passphrase, is of no use any more.
    kept = (directory / "host.key.sealed").read_bytes()
    (directory / "host.key.sealed").write_bytes(first)
    later = Coprocessors(directory)
    later.host_key.unlock(bytearray(PASSPHRASE))
    with pytest.raises(FormatError, match="sealed by host key"):
        later.list_info()
    (directory / "host.key.sealed").write_bytes(kept)
    ours.reseal(CREDENTIAL, bytearray())
    ours.reseal(FILE, bytearray())
    assert ours.host_key.get_state().method is FILE
    assert not (directory / "host.key.sealed").exists()
    assert Coprocessors(directory).list_info() == filled
    with pytest.raises(ConfigError, match="passphrase is empty"):
        ours.reseal(SealMethod.PASSPHRASE, bytearray())
    assert Coprocessors(directory).list_info() == filled


def test_a_state_without_adapters_can_be_sealed_first(directory):
    ours = Coprocessors(directory)
    ours.reseal(SealMethod.PASSPHRASE, bytearray(PASSPHRASE))
    info = ours.create(FIRST)
    assert not (directory / "host.key").exists()
    later = Coprocessors(directory)
    later.host_key.unlock(bytearray(PASSPHRASE))
    assert later.list_info() == (info,)


def test_a_damaged_adapter_keeps_all_as_it_is(directory, filled):
    (directory / "03.0040.adapter").write_bytes(b"{}")
    before = contents(directory)
    with pytest.raises(FormatError, match=r"03\.0040"):
        Coprocessors(directory).reseal(SealMethod.PASSPHRASE, bytearray(PASSPHRASE))
    assert contents(directory) == before
    assert filled


class Crash(BaseException):
    """The power goes."""


@pytest.mark.parametrize("start", ["file", "passphrase"])
@pytest.mark.parametrize("goal", ["passphrase", "file"])
def test_a_crash_at_any_write_loses_no_adapter(directory, filled, monkeypatch, start, goal):
    method = SealMethod.PASSPHRASE if goal == "passphrase" else FILE
    if start == "passphrase":
        Coprocessors(directory).reseal(SealMethod.PASSPHRASE, bytearray(PASSPHRASE))
    saved = {path: path.read_bytes() for path in directory.iterdir()}
    reached = 0
    for nth in range(1, 60):
        for path in directory.iterdir():
            path.unlink()
        for path, content in saved.items():
            path.write_bytes(content)
            path.chmod(0o600)
        count = 0

        def crash_at(real):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == nth:  # noqa: B023 (called in this turn of the loop)
                    raise Crash
                return real(*arguments, **options)

            return call

        ours = opened(directory)
        with monkeypatch.context() as patch, contextlib.suppress(Crash):
            for name in ("write", "fsync", "rename", "link", "unlink"):
                patch.setattr(f"os.{name}", crash_at(getattr(os, name)))
            patch.setattr(sealing, "remove_file", crash_at(sealing.remove_file))
            ours.reseal(method, bytearray(PASSPHRASE))
        crashed = count >= nth
        for path in directory.glob(".*.new"):
            path.unlink()
        later = opened(directory)
        assert later.list_info() == filled, nth
        later.reseal(method, bytearray(PASSPHRASE))  # again mends what was cut short
        final = opened(directory)
        assert final.list_info() == filled
        state = final.host_key.get_state()
        assert (state.method, state.has_plain_file) == (method, method is FILE), nth
        if not crashed:
            break
        reached += 1
    assert reached > 4


def opened(directory):
    ours = Coprocessors(directory)
    with contextlib.suppress(ConfigError):
        ours.host_key.unlock(bytearray(PASSPHRASE))
    return ours


def alterations():
    yield "method", lambda m: m.update({"with": "nothing"})
    yield "file", lambda m: m.update({"with": "host-key-file"})
    yield "version", lambda m: m.update(version=2)
    yield "keys", lambda m: m.update(keys=m["keys"][:-2] + "00")
    yield "short keys", lambda m: m.update(keys="00" * 16)
    yield "odd keys", lambda m: m.update(keys="00" * 49)
    yield "salt", lambda m: m.update(salt="00" * 32)
    yield "nonce", lambda m: m.update(nonce="00" * 12)
    yield "surplus", lambda m: m.update(more=1)
    yield "kdf salt", lambda m: m["kdf"].update(salt="11" * 32)
    yield "greedy kdf", lambda m: m["kdf"].update(n=1 << 24)
    yield "no kdf", lambda m: m.pop("kdf")
    yield "tpm2", lambda m: m.update({"with": "tpm2", "kdf": None})


@pytest.mark.parametrize("alter", [a for _, a in alterations()], ids=[i for i, _ in alterations()])
def test_an_altered_envelope_does_not_open(directory, filled, alter):
    Coprocessors(directory).reseal(SealMethod.PASSPHRASE, bytearray(PASSPHRASE))
    path = directory / "host.key.sealed"
    members = json.loads(path.read_bytes())
    alter(members)
    path.write_text(json.dumps(members))
    with pytest.raises((FormatError, NoKeyError), match=r"host\.key\.sealed"):
        Coprocessors(directory).host_key.unlock(bytearray(PASSPHRASE))
    with pytest.raises((FormatError, CoprocessorError)):
        Coprocessors(directory).list_info()
    assert filled


def test_an_envelope_comes_back_as_it_was_packed():
    kdf = PassphraseKdf.make()
    made = Envelope(SealMethod.PASSPHRASE, bytes(32), bytes(12), b"", kdf)
    key = bytearray(os.urandom(32))
    made = made.with_keys(bytearray(range(64)), key)
    again = Envelope.parse(made.pack(), "test")
    assert again == made
    assert again.open(key, "test") == bytearray(range(64))
    assert again.with_keys(bytearray(range(32)), key).nonce != again.nonce


@given(st.binary(max_size=200))
def test_hostile_bytes_are_an_envelope_or_an_error(data):
    with contextlib.suppress(FormatError):
        Envelope.parse(data, "test")


@given(st.data())
def test_hostile_members_are_an_envelope_or_an_error(data):
    json_values = st.one_of(st.none(), st.integers(), st.text(max_size=80), st.just({}))
    names = ["with", "salt", "nonce", "keys", "kdf", "tpm2", "version", "format"]
    members = json.loads(
        Envelope(SealMethod.PASSPHRASE, bytes(32), bytes(12), b"", PassphraseKdf.make())
        .with_keys(bytearray(32), bytearray(32))
        .pack()
    )
    members[data.draw(st.sampled_from(names))] = data.draw(json_values)
    with contextlib.suppress(FormatError):
        Envelope.parse(json.dumps(members).encode(), "test")


def test_kept_bytes_are_copied_and_forgotten():
    content = bytearray(os.urandom(64))
    kept = KeptBytes(content)
    assert kept.copy() == content
    assert kept.copy() is not kept.copy()
    kept.wipe()
    with pytest.raises(ValueError, match="closed"):
        kept.copy()
