"""Whose public key keystored takes: that of an engine of the service, and of root."""

import contextlib
import os
import secrets
import socket
import threading
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.daemon.config import load_settings
from fusecrypt.daemon.control.fields import pack_data
from fusecrypt.daemon.control.protocol import Request
from fusecrypt.daemon.exitcodes import ExitCode, get_exit_code
from fusecrypt.daemon.keystored.engines import Engines
from fusecrypt.daemon.keystored.messages import parse_transport
from fusecrypt.daemon.keystored.methods import Methods
from fusecrypt.daemon.peer import Peer
from fusecrypt.dmcrypt.engine.process import connect_engine
from fusecrypt.dmcrypt.engine.start import CLAIM_NAME
from fusecrypt.keystore.audit import AuditLog, Chain, list_files, read_log
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import AccessError, PolicyError
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from tests.unit.engine.engine_units import engine_units

DAEMON = Peer(pid=1, uid=4_000_000_000)
ROOT = Peer(pid=1, uid=0)
# Who may say where engines are is root.
pytestmark = pytest.mark.root
MAKE_TRANSPORT = "io.fusecrypt.Keystore.MakeTransport"


@pytest.fixture
def units():
    with engine_units() as made:
        yield made


@pytest.fixture
def engine(units):
    started = connect_engine(units.socket)
    yield started.engine
    started.close()


@pytest.fixture
def coprocessors(tmp_path) -> Coprocessors:
    made = Coprocessors(tmp_path / "keystore")
    made.create(Apqn(3, 0x39))
    return made


@pytest.fixture
def key(coprocessors) -> SecureKey:
    return coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True)


@pytest.fixture
def methods(coprocessors, tmp_path, units) -> Methods:
    return Methods(
        coprocessors,
        tmp_path / "keystore",
        memory="locked",
        audit=AuditLog(tmp_path / "keystore"),
        engines=Engines(units.engines),
    )


async def make_transport(methods, key, public_key, peer=DAEMON):
    parameters = {"token": pack_data(key.token), "public_key": pack_data(public_key)}
    method = methods.get_table(peer)[MAKE_TRANSPORT]
    return parse_transport(await method(Request(MAKE_TRANSPORT, parameters)))


def make_own_key() -> bytes:
    return X25519PrivateKey.generate().public_key().public_bytes_raw()


@contextlib.contextmanager
def answering(path: Path, answer: bytes):
    """One who says ``answer`` to everything, at a place of an engine."""
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(4096)
                        if answer:
                            connection.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_a_daemon_gets_keys_for_its_engine(methods, engine, key):
    made = await make_transport(methods, key, engine.hello.public_key)
    token = await trio.to_thread.run_sync(
        lambda: engine.import_key(made.blob, key_size=made.key_size)
    )
    assert token.token


async def test_a_daemon_that_was_taken_over_gets_none_for_a_key_of_its_own(
    methods, engine, key, tmp_path
):
    for stolen in (make_own_key(), make_own_key(), secrets.token_bytes(416)):
        with pytest.raises(PolicyError, match="no engine of the service has this public key") as e:
            await make_transport(methods, key, stolen)
        assert get_exit_code(e.value) is ExitCode.REFUSED_BY_POLICY
    # Its own key behind the engine's is no key of the engine either.
    with pytest.raises(PolicyError):
        await make_transport(methods, key, engine.hello.public_key + secrets.token_bytes(384))
    entries = list(read_log(list_files(tmp_path / "keystore"), Chain()))
    assert [(e.method, e.result) for e in entries] == [("MakeTransport", "PolicyError")] * 4


async def test_root_may_have_a_key_wrapped_for_an_engine_of_its_own(methods, key):
    assert (await make_transport(methods, key, make_own_key(), ROOT)).key_size == 64


async def test_without_units_any_engine_of_the_user_is_served(coprocessors, tmp_path, key):
    methods = Methods(coprocessors, tmp_path, memory="locked")
    assert (await make_transport(methods, key, make_own_key())).key_size == 64


async def test_keys_of_an_engine_that_is_gone_are_not_taken(methods, units, engine, key):
    public_key = engine.hello.public_key
    units.processes[0].kill()
    units.processes[0].wait()
    with pytest.raises(PolicyError):
        await make_transport(methods, key, public_key)


async def test_each_of_several_engines_is_found(methods, units, engine, key):
    units.processes.append(units.processes[0])  # so that the next place is not the first one's
    other = await trio.to_thread.run_sync(lambda: connect_engine(units.socket))
    for public_key in (engine.hello.public_key, other.engine.hello.public_key):
        await make_transport(methods, key, public_key)
    await trio.to_thread.run_sync(other.close)


def test_without_an_engine_there_is_no_key(tmp_path):
    assert not Engines(tmp_path / "nothing").hold(bytes(32))
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / CLAIM_NAME).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    assert not Engines(tmp_path).hold(bytes(32))


@pytest.mark.parametrize("answer", [b"\0", b"", b"\2", b"\1\1", b"yes"])
def test_only_a_clear_yes_is_one(units, answer):
    with answering(units.engines / "x" / CLAIM_NAME, answer):
        assert not Engines(units.engines).hold(bytes(32))
    with answering(units.engines / "y" / CLAIM_NAME, b"\1"):
        assert Engines(units.engines).hold(bytes(32))


@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o755), (0, 0o777), (0, 0o775)])
def test_a_directory_that_others_may_write_to_is_no_authority(units, owner, mode):
    units.engines.chmod(mode)
    os.chown(units.engines, owner, 0)
    with pytest.raises(AccessError, match="wanted: root's"):
        Engines(units.engines).hold(bytes(32))


def test_units_set_where_engines_are(tmp_path):
    environment = {"FUSECRYPT_ENGINE": "/run/e.sock", "FUSECRYPT_ENGINES": "/run/e"}
    settings = load_settings(environment={**environment, "HOME": str(tmp_path)}, uid=1000)
    assert (settings.engine, settings.engines) == (Path("/run/e.sock"), Path("/run/e"))
    assert load_settings(environment={"HOME": str(tmp_path)}, uid=1000).engines is None
