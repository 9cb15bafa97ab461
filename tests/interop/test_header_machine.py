"""Random sequences of header changes, judged after each step by our reader and cryptsetup's."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from fusecrypt.dmcrypt.engine.client import Engine
from tests.lab.header_machine import HeaderMachine
from tests.lab.header_session import running_engine
from tests.lab.header_volume import Lab
from tests.lab.luks1_machine import DATA, Luks1Machine

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


def test_no_sequence_of_changes_loses_a_keyslot_or_a_token(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = Lab(tmp_path_factory.mktemp("machine"))
    start = lab.image("start", "a", "-s", "256")
    with start.open("r+b") as file:
        file.seek(2 << 20)
        file.write(bytes(range(256)) * 4096)
    _run(lambda: HeaderMachine(lab, engine))


def test_no_sequence_of_changes_loses_a_keyslot_of_luks1(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = Lab(tmp_path_factory.mktemp("machine"))
    start = lab.directory / "start"
    start.write_bytes(bytes(DATA) + bytes(range(256)) * 4096)
    cheap = ("-c", "aes-cbc-plain64", "-s", "128", "--pbkdf-force-iterations", "1000")
    lab.real_ok("luksFormat", "-q", "--type", "luks1", *cheap, start, lab.key("a"))
    _run(lambda: Luks1Machine(lab, engine))


def _run(make: Callable[[], RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
