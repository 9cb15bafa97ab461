"""Random sequences of header changes, judged after each step by our reader and cryptsetup's."""

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from fusecrypt.dmcrypt.engine.client import Engine
from tests.lab.header_machine import HeaderMachine
from tests.lab.header_session import running_engine
from tests.lab.header_volume import Lab

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
    run_state_machine_as_test(
        lambda: HeaderMachine(lab, engine),
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
