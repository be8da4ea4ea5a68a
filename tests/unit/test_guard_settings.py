"""The guard as the settings make it."""

from __future__ import annotations

from typing import Any

import pytest

from app.brokers.guard import Guard, guarded
from app.settings import SettingsError, load
from tests.fake_store import FakeClock
from tests.fakes import FakeBroker, FakeNotifier

LOOPBACK = "http://127.0.0.1:1/api/v3"


pytestmark = pytest.mark.usefixtures("bare_environment")


def guard_of(**settings: Any) -> tuple[Guard, FakeClock]:
    clock = FakeClock()
    return guarded(FakeBroker(clock), load(**settings), clock, FakeNotifier()), clock


def calls_in_a_minute(**settings: Any) -> int:
    guard, clock = guard_of(**settings)
    total = 0
    for _ in range(50):
        total += sum(guard.budget.take_read(reserved=True) is None for _ in range(20))
        clock.advance(1.1)
    return total


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("fyers_orders_per_second", 10),
        ("fyers_calls_per_second", 10),
        ("fyers_calls_per_minute", 200),
        ("fyers_calls_per_day", 100_000),
    ],
)
def test_more_than_fyers_allows_is_only_for_a_simulator(name: str, most: int) -> None:
    load(**{name: most})
    with pytest.raises(SettingsError) as caught:
        load(**{name: most + 1})
    assert f"{name.upper()}: expected at most {most}" in str(caught.value)
    load(**{name: most + 1}, fyers_api_url=LOOPBACK)


def test_the_address_of_redis_is_one() -> None:
    load(redis_url="rediss://:secret@host:6379/0")
    with pytest.raises(SettingsError) as caught:
        load(redis_url="host:6379?password=secret")
    assert "REDIS_URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_budget_is_shared_by_all_processes() -> None:
    assert calls_in_a_minute() == 200
    assert calls_in_a_minute(expected_processes=4) == 50
    assert calls_in_a_minute(database_url="postgresql+psycopg://localhost/x") == 100, "two workers"
    assert calls_in_a_minute(fyers_calls_per_minute=20) == 20


def test_an_unreachable_redis_stops_no_start_and_no_call() -> None:
    guard, _ = guard_of(redis_url="redis://127.0.0.1:1/0")
    assert guard.budget.take_read(reserved=False) is None
    assert guard.ready() is None


@pytest.mark.parametrize(
    ("processes", "redis_url", "starts"), [(3, "", True), (4, "", False), (40, "redis://host", True)]
)
def test_a_share_that_holds_no_exit_starts_nothing_with_real_money(
    processes: int, redis_url: str, *, starts: bool
) -> None:
    live = {"trading_mode": "live", "fyers_app_id": "X-200", "fyers_access_token": "t"}
    given = {**live, "expected_processes": processes, "redis_url": redis_url}
    if starts:
        assert load(**given).processes == processes
        return
    with pytest.raises(SettingsError, match="EXPECTED_PROCESSES is 4: without REDIS_URL"):
        load(**given)
