"""Another session of the engine begins while a key is on its way: whoever opens does not notice.

Engine, coprocessor and images are the real ones. The session is made to begin just before a chosen
request of the opening reaches the engine.
"""

import contextlib
import os
import shutil

import pytest

from fusecrypt.daemon.activation import Activator, OpenFile, Recipe
from fusecrypt.daemon.control.messages import KeyInput, VolumeKeyInput
from fusecrypt.daemon.key_renewal import KeyRenewal
from fusecrypt.daemon.registry import Ownership, Registry
from fusecrypt.daemon.table_volumes import TableVolumes
from fusecrypt.daemon.tree import Tree
from fusecrypt.daemon.volume_changes import VolumeChanges
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.engine.messages import PkeyType
from fusecrypt.dmcrypt.engine.process import spawn_engine
from fusecrypt.dmcrypt.plain import make_params
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import ProtectedKeyExpiredError
from fusecrypt.keystore.tokens import KeyType
from tests.lab import cryptsetup, sectors
from tests.unit.dmcrypt.test_effective_key import Service

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

CLEAR = bytes(range(64))
PASSPHRASE = b"a passphrase"
OFFSET = 4 << 20  # the stripes of a secure key take half a mebibyte
SIZE = 64 << 10
#: As many as are tried.
SESSIONS = 5


@pytest.fixture(scope="module")
def process():
    started = spawn_engine()
    yield started
    started.engine.shutdown()
    assert started.wait(10) == 0
    started.close()


@pytest.fixture
def coprocessors(tmp_path):
    made = Coprocessors(tmp_path / "keystore")
    made.create(Apqn.parse("03.0039"))
    return made


class Place:
    """What a daemon has without a mount; and the text of its volumes."""

    def __init__(self, engine, service):
        self.engine = engine
        self.registry = Registry(engine, Tree(0, 0), Ownership(0, 0, 0o600))
        self.activator = Activator(engine, self.registry, service)
        renewal = KeyRenewal(engine, self.registry, service)
        self.changes = VolumeChanges(engine, self.registry, self.activator, renewal)

    async def open(self, image, key, **options):
        async def unlock(prepared, serve):
            if isinstance(key, VolumeKeyInput):
                return await self.activator.unlock_with_volume_key(prepared, key, serve)
            return await self.activator.unlock_with_secret(prepared, key, serve)

        with opened(image) as fd:
            recipe = Recipe("v", OpenFile(fd, str(image)), **options)
            return await self.activator.activate(recipe, unlock)

    def read(self):
        return self.engine.read(self.registry.get("v").device.number, 0, 4096)


@pytest.fixture
def place(process, coprocessors):
    made = Place(process.engine, Service(coprocessors))
    yield made
    for volume in made.registry.list_volumes():
        process.engine.remove_device(volume.device.number)
        volume.backing.close()


@pytest.fixture
def make_image(tmp_path, coprocessors):
    """An image by the real cryptsetup, of zeros on the disk; its passphrase is `PASSPHRASE`."""

    def make(cipher):
        token = CLEAR
        if cipher == "paes":
            key = coprocessors.import_clear(KeyType.CCA_AESDATA, bytearray(CLEAR), is_xts=True)
            token = key.token
        (tmp_path / "key").write_bytes(token)
        (tmp_path / "passphrase").write_bytes(PASSPHRASE)
        return cryptsetup.luks_format(
            *(tmp_path / "image", tmp_path / "passphrase", OFFSET + SIZE),
            *("--cipher", f"{cipher}-xts-plain64", "--key-size", str(len(token) * 8)),
            *("--volume-key-file", tmp_path / "key", "--offset", str(OFFSET // 512)),
            *("--sector-size", "512"),
        )

    return make


@pytest.fixture
def begin_before(monkeypatch):
    """Let another session begin before requests of a name, so many times; how many came."""

    def prepare(name, times=1, *, is_known=True):
        request, came = getattr(Engine, name), []

        def begin_and_ask(engine, *arguments, **named):
            came.append(name)
            if len(came) <= times:
                before = engine.hello
                engine.bump_session()
                if not is_known:  # the one who began it has not heard of it yet
                    engine.hello = before
            return request(engine, *arguments, **named)

        monkeypatch.setattr(Engine, name, begin_and_ask)
        return came

    return prepare


@contextlib.contextmanager
def opened(path):
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def passphrase(text=PASSPHRASE):
    """It comes once: nobody types it again."""
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    try:
        yield KeyInput(reader, "all", keyfile=False)
    finally:
        os.close(reader)


def plaintext():
    return sectors.crypt(bytes(4096), "aes-xts-plain64", CLEAR, sector_size=512, encrypt=False)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("cipher", "request_"),
    [("aes", "add_device"), ("paes", "export_key"), ("paes", "import_key"), ("paes", "add_device")],
)
async def test_a_volume_opens_although_a_session_begins(
    place, make_image, begin_before, cipher, request_, is_known
):
    image = make_image(cipher)
    came = begin_before(request_, is_known=is_known)
    with passphrase() as key:
        await place.open(image, key)
    assert len(came) > 1
    assert place.read() == plaintext()


async def test_so_many_sessions_and_no_more(place, make_image, begin_before):
    image = make_image("aes")
    came = begin_before("add_device", SESSIONS - 1)
    with passphrase() as key:
        await place.open(image, key)
    assert len(came) == SESSIONS
    assert place.read() == plaintext()


async def test_sessions_without_end_are_an_error_and_leave_nothing(place, make_image, begin_before):
    image = make_image("aes")
    came = begin_before("add_device", 99)
    with passphrase() as key, pytest.raises(ProtectedKeyExpiredError):
        await place.open(image, key)
    assert len(came) == SESSIONS
    assert len(place.registry) == 0


async def test_a_volume_key_in_a_pipe_is_read_once(place, make_image, begin_before):
    image = make_image("aes")
    came = begin_before("make_digest")
    with passphrase(CLEAR) as key:
        await place.open(image, VolumeKeyInput(key.fd, 0))
    assert len(came) == 2
    assert place.read() == plaintext()


async def test_a_random_key_of_a_session_long_ago_is_not_tried_again(place, tmp_path, begin_before):
    image, token = tmp_path / "image", place.engine.make_pkey_token(PkeyType.AES_XTS_256)
    image.write_bytes(bytes(SIZE))
    place.engine.bump_session()
    came = begin_before("plain_key", 0)
    params = make_params(
        cipher="paes-xts-plain64", key_bits=len(token) * 8, hash_spec=None, has_keyfile=True
    )
    with passphrase(token) as key, pytest.raises(ProtectedKeyExpiredError):
        await place.open(image, KeyInput(key.fd, "all", keyfile=True), plain=params)
    assert len(came) == 1


async def test_a_table_is_served_although_a_session_begins(place, tmp_path, begin_before):
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    came = begin_before("add_device")
    tables = TableVolumes(place.engine, place.registry, place.activator)
    lines = [f"0 {SIZE // 512} crypt aes-xts-plain64 :64: 0 0 0"]
    with opened(image) as fd, passphrase(CLEAR.hex().encode()) as key:
        files = [OpenFile(fd, str(image))]
        await tables.open("v", lines, files, key, is_read_only=False)
    assert len(came) == 2
    assert place.read() == plaintext()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("cipher", "request_"),
    [("aes", "rekey"), ("paes", "rekey"), ("paes", "export_key"), ("paes", "resume")],
)
async def test_a_volume_is_resumed_although_a_session_begins(
    place, make_image, begin_before, cipher, request_, is_known
):
    image = make_image(cipher)
    with passphrase() as key:
        volume = await place.open(image, key)
    place.engine.suspend(volume.device.number, wipe_keys=True)
    volume.is_suspended = True
    came = begin_before(request_, is_known=is_known)
    with passphrase() as key, opened(image) as fd:
        await place.changes.resume("v", OpenFile(fd, str(image)), key, None)
    assert len(came) > 1
    assert place.read() == plaintext()
    assert not volume.is_suspended
