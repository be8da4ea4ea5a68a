"""A breaker of a worker that nobody asks."""

from __future__ import annotations

import threading

import pytest

from app.brokers.guard.lookout import LOOK_S, Lookout
from app.telemetry.metrics import Metrics
from app.wiring.watching import sample_guard
from tests.fake_store import FakeClock
from tests.fakes import FakeBroker
from tests.guard_desk import LOST, GuardDesk


def tripped(clock: FakeClock, broker: FakeBroker) -> GuardDesk:
    desk = GuardDesk(clock, broker)
    broker.next_place = [LOST] * 5
    for _ in range(5):
        desk.place()
    assert not desk.guard.is_closed
    return desk


def test_it_closes_by_a_look_of_its_own_once_the_broker_is_well() -> None:
    clock = FakeClock()
    broker = FakeBroker(clock)
    desk = tripped(clock, broker)
    broker.fail.add("market_open")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)
        if len(waited) == 3:
            broker.fail.clear()

    lookout = Lookout(desk.guard, wait)
    lookout.wake()
    assert lookout._thread is not None
    lookout._thread.join(5)
    assert desk.guard.is_closed
    assert waited == [LOOK_S] * 3


def test_where_all_is_closed_nobody_looks() -> None:
    desk = GuardDesk()
    lookout = Lookout(desk.guard)
    lookout.wake()
    lookout.look()
    assert lookout._thread is None
    assert not desk.broker.calls


def test_without_a_thread_the_order_that_tripped_it_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    desk = GuardDesk(clock, FakeBroker(clock))
    desk.guard.listeners.append(Lookout(desk.guard).wake)

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    desk.broker.next_place = [LOST] * 5
    assert [desk.place() for _ in range(5)] == [LOST] * 5


def test_a_listener_that_fails_hides_no_outcome() -> None:
    desk = GuardDesk()

    def broken() -> None:
        raise OSError("no space left")

    desk.guard.listeners.append(broken)
    desk.broker.next_place = [LOST] * 5
    assert [desk.place() for _ in range(5)] == [LOST] * 5
    assert not desk.guard.is_closed


def test_the_figure_of_a_worker_goes_with_its_breaker_though_another_is_scraped() -> None:
    clock = FakeClock()
    desk = GuardDesk(clock, FakeBroker(clock))
    metrics = Metrics()
    desk.guard.listeners.append(lambda: sample_guard(desk.guard, metrics))
    desk.broker.next_place = [LOST] * 5
    for _ in range(5):
        desk.place()
    assert shown(metrics) == 2
    clock.advance(60)
    desk.read()
    assert shown(metrics) == 0


def shown(metrics: Metrics) -> float:
    """Of the orders' breaker, without sampling it anew."""
    (value,) = [
        sample.value
        for family in metrics.registry.collect()
        if family.name == "breaker_state"
        for sample in family.samples
        if sample.labels["breaker"] == "orders"
    ]
    return value
