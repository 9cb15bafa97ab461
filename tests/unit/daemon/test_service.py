"""Signs of life for the service manager."""

import os

import pytest
import trio

from fusecrypt.daemon import service
from fusecrypt.keystore.errors import EngineError


@pytest.fixture
def told(monkeypatch) -> list[tuple[float, str]]:
    said: list[tuple[float, str]] = []
    monkeypatch.setattr(service, "notify", lambda text: said.append((trio.current_time(), text)))
    return said


@pytest.mark.parametrize(
    ("environment", "timeout"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_the_one_of_the_environment(environment, timeout):
    assert service.get_watchdog_timeout(environment) == timeout


async def run_for(seconds: float, check) -> None:
    with trio.move_on_after(seconds):
        await service.feed_watchdog(check)


async def test_a_sign_of_life_comes_twice_in_each_time_limit(
    told,
    monkeypatch,
    autojump_clock,  # noqa: ARG001
):
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    start = trio.current_time()
    await run_for(21, trio.lowlevel.checkpoint)
    assert [round(at - start) for at, _ in told] == [0, 5, 10, 15, 20]
    assert {text for _, text in told} == {"WATCHDOG=1"}


async def test_no_sign_of_life_comes_while_the_check_hangs_or_fails(
    told,
    monkeypatch,
    autojump_clock,  # noqa: ARG001
    caplog,
):
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    await run_for(30, trio.sleep_forever)

    async def fail() -> None:
        raise EngineError("dead")

    await run_for(12, fail)
    assert told == []
    assert "watchdog: dead" in caplog.text
    caplog.clear()


async def test_without_a_watchdog_nothing_is_checked(told, monkeypatch):
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await service.feed_watchdog(trio.sleep_forever)
    assert told == []


async def test_a_long_start_asks_for_more_time_until_it_is_over(
    told,
    autojump_clock,  # noqa: ARG001
):
    async with service.extended_start():
        await trio.sleep(25)
    await trio.sleep(60)
    assert [text for _, text in told] == ["EXTEND_TIMEOUT_USEC=40000000"] * 3
