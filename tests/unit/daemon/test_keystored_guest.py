"""The keystored plays a secure guest: secrets by descriptors, a record of each step."""

import hashlib
import os

import pytest

from fusecrypt.daemon.keystored.guest_client import GuestKeystore
from fusecrypt.daemon.keystored.methods import Methods
from fusecrypt.keystore.audit import AuditLog, Chain, list_files, read_log
from fusecrypt.keystore.control_points import DEFAULT, ControlPoint
from fusecrypt.keystore.coprocessor import Apqn, SeState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    BusyError,
    ConfigError,
    CoprocessorError,
    MapperError,
    PolicyError,
)
from fusecrypt.keystore.tokens import KeyType
from tests.unit.daemon.keystored_process import call, pipe, running_keystore

APQN = Apqn(5, 0x11)
SECRET = bytes(range(32))


@pytest.fixture
async def running(settings):
    """A keystored with an EP11 adapter."""
    directory = settings.keystore_dir
    methods = Methods(
        Coprocessors(directory), directory, memory="locked", audit=AuditLog(directory)
    )
    async with running_keystore(settings, methods) as keystore:
        await call(keystore.create_adapter, APQN, "ep11", with_master_key=True)
        yield keystore


@pytest.fixture
async def guest(running):
    return GuestKeystore(running._settings)


async def test_a_domain_is_bound_associated_and_unbound(running, guest, settings):
    with pipe(SECRET) as fd:
        request, secret_id = await call(guest.create_secret, "a name", input_fd=fd)
    assert secret_id == hashlib.sha256(b"a name").digest()
    (listed,) = (await call(guest.add_secret, request)).secrets
    assert listed.id == secret_id
    assert (await call(guest.bind, APQN)).se_state is SeState.BOUND
    info = await call(guest.associate, APQN, 0)
    assert (info.se_state, info.association) == (SeState.USABLE, 0)
    assert info.session == listed.session_id
    assert (await call(running.list_adapters)) == (info,)
    key = await call(running.generate, KeyType.EP11_AES, key_bits=256, xts=True)
    assert key.session == info.session
    await call(running.validate, key)
    assert (await call(guest.unbind, APQN)).se_state is SeState.UNBOUND
    with pytest.raises(CoprocessorError, match="not associated with its secret"):
        await call(running.validate, key)
    entries = list(read_log(list_files(settings.keystore_dir), Chain()))[1:]
    assert [(entry.method, entry.result) for entry in entries] == [
        ("CreateSecret", "ok"), ("AddSecret", "ok"), ("BindAdapter", "ok"),
        ("AssociateAdapter", "ok"), ("GenerateKey", "ok"), ("ValidateKey", "ok"),
        ("UnbindAdapter", "ok"), ("ValidateKey", "CoprocessorError"),
    ]  # fmt: skip
    facts = [dict(entry.facts) for entry in entries]
    assert facts[0]["secret"] == "a name"
    assert facts[1]["newest_secret"] == secret_id.hex()
    assert facts[3]["step"] == "associated with secret 0"
    assert facts[5]["session"] == facts[3]["session"] == info.session.hex()
    for file in list_files(settings.keystore_dir):
        assert SECRET[:8].hex().encode() not in file.read_bytes()


async def test_a_random_secret_is_written_where_it_is_wanted(guest):
    reader, writer = os.pipe()
    os.close(writer)
    file = os.memfd_create("secret")
    request, _ = await call(guest.create_secret, "one", output_fd=file)
    secret = os.pread(file, 64, 0)
    assert len(set(secret)) > 16
    assert len(secret) == 32
    await call(guest.add_secret, request)
    await call(guest.bind, APQN)
    session = (await call(guest.associate, APQN, 0)).session
    with pipe(secret) as fd:
        request, _ = await call(guest.create_secret, "the same under another name", input_fd=fd)
    await call(guest.add_secret, request)
    await call(guest.unbind, APQN)
    await call(guest.bind, APQN)
    assert (await call(guest.associate, APQN, 1)).session == session
    with pytest.raises(MapperError, match="cannot write it"):
        await call(guest.create_secret, "two", output_fd=reader)
    os.close(reader)
    os.close(file)


@pytest.mark.parametrize("size", [0, 31, 33])
async def test_a_secret_of_another_size_is_refused(guest, size):
    with pipe(bytes(size)) as fd, pytest.raises(ConfigError):
        await call(guest.create_secret, "one", input_fd=fd)


@pytest.mark.parametrize("name", ["", "n" * 256])
async def test_a_name_has_to_fit(guest, name):
    with pytest.raises(ConfigError, match="1 to 255 bytes"):
        await call(guest.create_secret, name)


async def test_secrets_are_listed_and_locked(guest):
    assert (await call(guest.list_secrets)).secrets == ()
    request, secret_id = await call(guest.create_secret, "one")
    await call(guest.add_secret, request)
    with pytest.raises(BusyError):
        await call(guest.add_secret, request)
    other, _ = await call(guest.create_secret, "two")
    assert (await call(guest.lock_secrets)).is_locked
    with pytest.raises(PolicyError):
        await call(guest.add_secret, other)
    assert [secret.id for secret in (await call(guest.list_secrets)).secrets] == [secret_id]


async def test_control_points_are_turned_off_and_on(guest, running):
    point = ControlPoint.KEYGEN_SYMM
    info = await call(guest.change_control_points, APQN, [], [point])
    assert info.control_points == DEFAULT - {point}
    assert await call(running.list_adapters) == (info,)
    with pytest.raises(CoprocessorError, match="XCP_CPB_KEYGEN_SYMM is off"):
        await call(running.generate, KeyType.EP11_AES, key_bits=256, xts=True)
    await call(guest.change_control_points, APQN, [point], [])
    await call(running.generate, KeyType.EP11_AES, key_bits=256, xts=True)
