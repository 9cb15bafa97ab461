"""Clear keys written to a descriptor: how, and which are not."""

import os
from collections.abc import Iterator

import pytest

from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.engine.messages import KeyForm
from fusecrypt.dmcrypt.engine.process import spawn_engine
from fusecrypt.keystore.errors import AccessError, PolicyError
from fusecrypt.keystore.keys import ProtectedKey
from fusecrypt.keystore.transport import seal
from tests.unit.engine.engine_keys import load_key
from tests.unit.keystore.samples import REAL_XTS_KEY, clear_key


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    process = spawn_engine()
    yield process.engine
    process.terminate()
    assert process.wait(10) == 0
    process.close()


def written(engine: Engine, key: ProtectedKey, form: KeyForm) -> bytes:
    reader, writer = os.pipe()
    try:
        engine.write_key(key, writer, form)
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as file:
        return file.read()


@pytest.mark.parametrize("size", [16, 24, 32, 33, 64, 128])
def test_a_key_is_written_as_it_is_or_as_text(engine: Engine, size: int) -> None:
    clear = os.urandom(size)
    key = load_key(engine, clear)
    assert written(engine, key, KeyForm.RAW) == clear
    lines = [clear[at : at + 16] for at in range(0, size, 16)]
    text = "\n\t\t".join("".join(f"{byte:02x} " for byte in line) for line in lines)
    assert written(engine, key, KeyForm.TEXT) == f"{text}\n".encode()


@pytest.mark.parametrize("size", [16, 64, 128])
def test_a_secure_key_and_its_beginning_are_not_written(engine: Engine, size: int) -> None:
    key = load_key(engine, REAL_XTS_KEY[:size])
    for form in KeyForm:
        with pytest.raises(PolicyError, match="secure key"):
            written(engine, key, form)


def test_a_key_that_a_coprocessor_sent_is_not_written(engine: Engine) -> None:
    blob = seal(clear_key(256, is_xts=True), engine.hello.public_key)
    key = engine.import_key(blob)
    with pytest.raises(PolicyError, match="secure key"):
        written(engine, key, KeyForm.RAW)


def test_where_nobody_reads_nothing_is_written(engine: Engine) -> None:
    key = load_key(engine, os.urandom(64))
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(AccessError, match="Broken pipe"):
        engine.write_key(key, writer, KeyForm.RAW)
    os.close(writer)
    null = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(AccessError, match="Bad file descriptor"):
        engine.write_key(key, null, KeyForm.RAW)
    os.close(null)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(AccessError, match="No space"):
        engine.write_key(key, full, KeyForm.TEXT)
    os.close(full)
