"""The keystored changes adapters, their master keys, and the tokens of keys."""

import hashlib
import secrets

import pytest

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register
from fusecrypt.keystore.errors import (
    ConfigError,
    CoprocessorError,
    MapperError,
    NoKeyError,
    NotFoundError,
    PolicyError,
)
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.seal_state import SealMethod
from fusecrypt.keystore.tokens import KeyType
from tests.unit.daemon.keystored_process import call, pipe

APQN = Apqn(3, 0x39)
OTHER = Apqn(4, 1)


async def test_a_key_goes_into_other_tokens(running):
    adapter = await call(running.create_adapter, APQN, "cca", with_master_key=True)
    with pipe(bytes(range(64))) as fd:
        key = await call(
            running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True, clear_key_fd=fd
        )
    assert await call(running.reencipher, key, Register.CURRENT, apqns=[APQN]) == key
    with pytest.raises(CoprocessorError, match="NEW empty"):
        await call(running.reencipher, key, Register.NEW)
    with pytest.raises(MapperError, match="target"):
        await call(running.reencipher, key, Register.OLD)
    made = await call(running.convert, key, KeyType.CCA_AESCIPHER, is_exportable=True)
    limited = await call(running.restrict, made, apqns=[APQN])
    assert limited == await call(running.convert, key, KeyType.CCA_AESCIPHER)
    assert made != limited
    assert limited.mkvp == adapter.current.mkvp
    pattern = (await call(running.validate, key)).pattern
    for other in (made, limited):
        assert (await call(running.validate, other)).pattern == pattern
    with pytest.raises(CoprocessorError, match="does not exist"):
        await call(running.restrict, made, apqns=[OTHER])
    exportable = await call(
        running.generate, KeyType.CCA_AESCIPHER, key_bits=256, xts=False, is_exportable=True
    )
    assert exportable.token[50:52] == made.token[50:52] == b"\xf8\x00"


async def test_a_master_key_is_changed(running):
    before = await call(running.create_adapter, APQN, "cca", with_master_key=True)
    key = await call(running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True)
    parts = [secrets.token_bytes(32) for _ in range(3)]
    for part, content in zip(Part, parts, strict=True):
        with pipe(content) as fd:
            info = await call(running.load_master_key_part, APQN, part, fd)
    whole = bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True))
    assert info.new.mkvp == hashlib.sha256(b"\1" + whole).digest()[:8]
    other = await call(running.create_adapter, OTHER, "cca", with_master_key=False, level=7)
    assert other.type == "CEX7C"
    cloned = await call(running.clone_master_key, OTHER, APQN, Register.NEW)
    assert cloned.new == info.new
    staged = await call(running.reencipher, key, Register.NEW)
    for apqn in (APQN, OTHER):
        info = await call(running.set_master_key, apqn)
    assert info == (await call(running.list_adapters))[1]
    assert (await call(running.validate, staged)).apqns == (APQN, OTHER)
    validation = await call(running.validate, key)
    assert (validation.register, validation.mkvp) == (Register.OLD, before.current.mkvp)
    assert (await call(running.generate_master_key, OTHER)).new.state is Fill.FULL
    assert (await call(running.clear_new_master_key, OTHER)).new.state is Fill.EMPTY
    with pytest.raises(CoprocessorError, match="NEW is empty"):
        await call(running.set_master_key, OTHER)
    with pipe(bytes(range(33))) as fd, pytest.raises(ConfigError, match="more than 32"):
        await call(running.load_master_key_part, OTHER, Part.FIRST, fd)
    with pipe(bytes(32)) as fd, pytest.raises(PolicyError, match="weak"):
        await call(running.load_master_key_part, OTHER, Part.FIRST, fd)


async def test_adapters_change_their_state(running):
    for apqn in (APQN, OTHER):
        await call(running.create_adapter, apqn, "cca", with_master_key=True)
    await call(running.change_adapters, [APQN], Change.CHECKSTOP)
    await call(running.change_adapters, [OTHER], Change.OFFLINE)
    assert [str(a.status) for a in await call(running.list_adapters)] == ["chkstop", "offline"]
    with pytest.raises(CoprocessorError, match=r"chkstop.*offline"):
        await call(running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True)
    await call(running.change_adapters, [OTHER], Change.ONLINE)
    await call(running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True)
    infos = await call(running.list_adapters)
    assert [info.requests for info in infos] == [0, 1]
    with pytest.raises(NotFoundError):
        await call(running.change_adapters, [Apqn(9, 9)], Change.OFFLINE)
    accelerator = await call(running.create_adapter, Apqn(5, 0), "accel", with_master_key=True)
    assert (accelerator.type, accelerator.current.mkvp) == ("CEX8A", None)
    spare = await call(
        running.create_adapter, Apqn(3, 1), "cca", with_master_key=True, is_control_only=True
    )
    assert spare.is_control_only


async def test_the_state_is_sealed_with_a_passphrase_and_locked(running, settings):
    await call(running.create_adapter, APQN, "cca", with_master_key=True)
    key = await call(running.generate, KeyType.CCA_AESDATA, key_bits=256, xts=True)
    state = await call(running.get_sealing)
    assert (state.method, state.is_locked, state.has_plain_file) == ("host-key-file", False, True)
    with pipe(b"a passphrase") as fd:
        await call(running.seal, SealMethod.PASSPHRASE, passphrase_fd=fd)
    assert (await call(running.get_sealing)).method is SealMethod.PASSPHRASE
    await call(running.validate, key)
    await call(running.lock)
    assert (await call(running.get_sealing)).is_locked
    for use in (running.list_adapters, lambda: running.validate(key)):
        with pytest.raises(CoprocessorError, match="locked"):
            await call(use)
    with pipe(b"another") as fd, pytest.raises(NoKeyError):
        await call(running.unlock, fd)
    with pipe(b"a passphrase") as fd:
        await call(running.unlock, fd)
    await call(running.validate, key)
    with pytest.raises(CoprocessorError, match="credential fusecrypt-keystore: none"):
        await call(running.seal, SealMethod.CREDENTIAL)
    with pytest.raises(ConfigError, match="PCRs"):
        await call(running.seal, SealMethod.TPM2, pcrs="99")
    await call(running.seal, SealMethod.HOST_KEY_FILE)
    assert (settings.keystore_dir / "host.key").stat().st_size == 32
