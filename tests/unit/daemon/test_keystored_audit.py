"""What the keystored writes down of its calls, and that it gives no answer without."""

import os
import secrets

import pytest

from fusecrypt.daemon.control.protocol import Request
from fusecrypt.daemon.keystored.methods import Methods
from fusecrypt.daemon.peer import Peer
from fusecrypt.keystore.audit import AuditLog, Chain, list_files, read_log
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import AccessError, CoprocessorError, NoKeyError
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.tokens import KeyType
from tests.unit.daemon.keystored_process import call, pipe

APQN, OTHER = Apqn(3, 0x39), Apqn(4, 1)
PUBLIC_KEY = bytes([9]) + bytes(31)
STRANGER = Peer(pid=77, uid=4_000_000_000)


@pytest.fixture
def methods(settings):
    directory = settings.keystore_dir
    return Methods(Coprocessors(directory), directory, memory="locked", audit=AuditLog(directory))


def read(settings):
    return list(read_log(list_files(settings.keystore_dir), Chain()))


async def test_every_use_of_a_key_is_one_line_with_who_what_and_which(running, settings):
    adapter = await call(running.create_adapter, APQN, "cca", with_master_key=True)
    mkvp = adapter.current.mkvp.hex()
    clear = secrets.token_bytes(64)
    with pipe(clear) as fd:
        key = await call(
            running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True, clear_key_fd=fd
        )
    validation = await call(running.validate, key)
    made = await call(running.make_transport, key, PUBLIC_KEY)
    await call(running.list_adapters)  # uses no key
    await call(running.get_info)
    with pytest.raises(CoprocessorError):
        await call(running.reencipher, key, Register.NEW)
    await call(running.convert, key, KeyType.CCA_AESCIPHER)
    part = secrets.token_bytes(32)
    with pipe(part) as fd:
        await call(running.load_master_key_part, APQN, Part.FIRST, fd)
    with pipe(b"a passphrase") as fd:
        backup = await call(running.backup, fd)
    with pipe(b"another") as fd, pytest.raises(NoKeyError):
        await call(running.restore, backup, fd)

    entries = read(settings)
    assert {(entry.uid, entry.pid) for entry in entries} == {(os.getuid(), os.getpid())}
    assert [(entry.method, entry.result) for entry in entries] == [
        ("CreateAdapter", "ok"),
        ("GenerateKey", "ok"),
        ("ValidateKey", "ok"),
        ("MakeTransport", "ok"),
        ("ReencipherKey", "CoprocessorError"),
        ("ConvertKey", "ok"),
        ("LoadMasterKeyPart", "ok"),
        ("BackupAdapters", "ok"),
        ("RestoreAdapters", "NoKeyError"),
    ]
    facts = {entry.method: entry.facts for entry in entries}
    assert facts["CreateAdapter"]["current"] == mkvp
    assert facts["GenerateKey"] == {
        "apqn": str(APQN), "origin": "clear key", "new_key_type": "CCA-AESDATA", "new_mkvp": mkvp
    }  # fmt: skip
    assert facts["MakeTransport"] == {
        "apqn": str(APQN), "key_type": "CCA-AESDATA", "mkvp": mkvp,
        "pattern": validation.pattern, "register": "CURRENT",
    }  # fmt: skip
    assert facts["ReencipherKey"]["target"] == "NEW"
    assert "NEW empty" in facts["ReencipherKey"]["message"]
    assert facts["LoadMasterKeyPart"]["new"] == "partial"
    # And nothing that is secret, nor the tokens themselves.
    log = b"".join(path.read_bytes() for path in list_files(settings.keystore_dir))
    for secret in (clear[:32], clear[32:], part, b"a passphrase", key.token[16:48], made.blob):
        assert secret not in log
        assert secret.hex().encode() not in log


async def test_a_strangers_attempt_is_written_down(methods, settings):
    name = "io.fusecrypt.Keystore.BackupAdapters"
    with pytest.raises(AccessError):
        await methods.get_table(STRANGER)[name](Request(name, {}))
    (entry,) = read(settings)
    assert (entry.uid, entry.pid, entry.method) == (STRANGER.uid, STRANGER.pid, "BackupAdapters")
    assert entry.result == "AccessError"


async def test_without_a_record_there_is_no_answer(running, settings, monkeypatch):
    await call(running.create_adapter, APQN, "cca", with_master_key=True)
    key = await call(running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True)
    (path,) = list_files(settings.keystore_dir)

    def fail(*_, **__):
        raise AccessError("audit.log: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "append", fail)
        with pytest.raises(CoprocessorError, match=r"no answer without a record.*No space left"):
            await call(running.make_transport, key, PUBLIC_KEY)
    await call(running.make_transport, key, PUBLIC_KEY)
    # As with a log that somebody altered.
    path.write_bytes(path.read_bytes()[:-1].replace(b"ok", b"no") + b"\n\n")
    with pytest.raises(CoprocessorError, match="no answer without a record"):
        await call(running.make_transport, key, PUBLIC_KEY)
