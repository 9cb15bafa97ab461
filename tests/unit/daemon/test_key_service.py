"""The daemon's keystored: held from the first secure key to the daemon's end."""

import threading

import pytest

from fusecrypt.daemon.key_service import KeyService
from fusecrypt.daemon.keystored.client import Keystore
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.errors import CoprocessorError
from fusecrypt.keystore.tokens import KeyType
from tests.unit.daemon.keystored_process import call, running_keystore

APQN = Apqn(3, 0x39)


def generate(service):
    return service.generate(KeyType.CCA_AESDATA, key_bits=256, xts=False)


async def test_a_keystored_that_went_away_is_found_again(settings, methods):
    service = KeyService(settings)
    for number in range(2):
        async with running_keystore(settings, methods) as keystore:
            if number == 0:
                await call(keystore.create_adapter, APQN, "cca", with_master_key=True)
            assert (await call(generate, service)).key_type is KeyType.CCA_AESDATA
    with pytest.raises(CoprocessorError, match="nobody listens"):
        await call(generate, service)
    service.close()


def test_the_end_does_not_wait_for_a_keystored_that_is_being_started(settings, monkeypatch):
    started, may_go_on = threading.Event(), threading.Event()

    def attach(_keystore):
        started.set()
        assert may_go_on.wait(10)
        raise CoprocessorError("too late")

    monkeypatch.setattr(Keystore, "attach", attach)
    service = KeyService(settings)

    def derive():
        with pytest.raises(CoprocessorError, match="too late"):
            generate(service)

    deriving = threading.Thread(target=derive)
    deriving.start()
    assert started.wait(10)
    service.close()
    assert deriving.is_alive()
    may_go_on.set()
    deriving.join(10)
    assert not deriving.is_alive()
