"""What a hint sets going: a pass of the reconciliation, soon, seldom, in one process at a time, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from app.brokers.fyers.order_socket import OrderSocket
from app.domain.deadline import Deadline
from app.domain.order import Order
from app.domain.status import Status
from app.jobs.run import JOBS, LEASE, Scheduler, lease_of
from app.settings import load
from app.telemetry.metrics import Metrics
from app.wiring import SystemClock
from app.wiring.feeds import order_feed_of, with_feed
from tests.fyers_sim import FyersSim, SimClock, sample_masters
from tests.simulator.clock import ist_date
from tests.simulator.order_socket import OrderSocketSim
from tests.unit.updates_desk import WITHIN_S, Bell, Given, Instance
from tests.wire_desk import MORNING, WireDesk

RECONCILE = JOBS["reconcile"]


@pytest.fixture
def sim() -> Iterator[FyersSim]:
    clock = SimClock(MORNING)
    with FyersSim(masters=sample_masters(ist_date(MORNING)), clock=clock, fill_mode="rest") as made:
        yield made


@pytest.fixture
def server(sim: FyersSim) -> Iterator[OrderSocketSim]:
    with OrderSocketSim(sim) as made:
        yield made


@pytest.fixture
def desk(sim: FyersSim, tmp_path: Path) -> Iterator[WireDesk]:
    assert isinstance(sim.clock, SimClock)
    made = WireDesk(tmp_path, sim, sim.clock)
    yield made
    made.close()


@pytest.fixture
def instance(desk: WireDesk, server: OrderSocketSim) -> Iterator[Instance]:
    made = Instance(desk, server.url)
    yield made
    made.stop()


@pytest.fixture
def rung(desk: WireDesk) -> Iterator[Callable[..., tuple[Instance, Bell]]]:
    made: list[Instance] = []

    def new(**pace: float) -> tuple[Instance, Bell]:
        one, bell = Instance(desk, "", **pace), Bell()
        one.updates._feed = bell
        made.append(one)
        one.updates.start()
        assert bell.started.wait(WITHIN_S)
        return one, bell

    yield new
    for one in made:
        one.stop()


def broker_id(order: Order) -> str:
    assert order.broker_order_id is not None
    return order.broker_order_id


def test_a_fill_is_known_long_before_the_timer_asks(
    instance: Instance, server: OrderSocketSim, sim: FyersSim, caplog: pytest.LogCaptureFixture
) -> None:
    """No timer runs here at all: without the socket nobody would ever look."""
    order = instance.desk.bought()
    with caplog.at_level(logging.DEBUG):
        instance.updates.start()
        assert server.wait(lambda seen: seen["subscribed"] == 1)
        sim.fill(broker_id(order))
        assert instance.becomes(order, Status.FILLED)
    lock, owner = lease_of(instance.ports, RECONCILE), instance.updates._owner
    assert {lease for _, lease in instance.passes} == {(lock, owner)}
    assert "X-200:t" not in caplog.text


def test_what_happened_while_the_socket_was_away_is_found_by_the_pass_after_its_return(
    instance: Instance, server: OrderSocketSim, sim: FyersSim
) -> None:
    order = instance.desk.bought()
    instance.updates.start()
    assert server.wait(lambda seen: seen["subscribed"] == 1)
    server.fault = "refuse"
    server.drop()
    assert server.wait(lambda seen: seen["refused"] >= 2)
    sim.fill(broker_id(order))
    assert server.seen["pushed"] == 0
    server.fault = ""
    assert instance.becomes(order, Status.FILLED)
    assert server.seen["pushed"] == 0


def test_a_message_alone_changes_no_row(instance: Instance, server: OrderSocketSim, sim: FyersSim) -> None:
    order = instance.desk.bought()
    instance.updates.start()
    assert server.wait(lambda seen: seen["subscribed"] == 1)
    sim.freeze_book()
    done = len(instance.passes)
    sim.fill(broker_id(order))
    assert server.seen["pushed"] == 1
    assert instance.wait(lambda: len(instance.passes) > done)
    assert instance.desk.row(order).status is Status.ACCEPTED
    sim.unfreeze_book()


@pytest.mark.parametrize("fault", ["refuse", "hang", "silent", "rubbish", "close", "flood", "huge_frame"])
def test_whatever_the_socket_does_polling_and_alerts_go_on(
    fault: str, instance: Instance, server: OrderSocketSim, sim: FyersSim
) -> None:
    """A pass of the timer's own, with its own owner, beside a socket in trouble."""
    server.fault = fault
    instance.updates.start()
    assert server.wait(lambda seen: seen["connections"] >= 1)
    order = instance.desk.bought()
    sim.exchange.watchers.clear()  # the socket tells nobody
    try:
        sim.fill(broker_id(order))
    finally:
        sim.exchange.watchers.append(server._push)
    timer = Scheduler(instance.ports)
    ends = monotonic() + WITHIN_S
    while instance.desk.row(order).status is not Status.FILLED and monotonic() < ends:
        timer._slots.clear()
        timer.tick(RECONCILE)
    assert instance.desk.row(order).status is Status.FILLED
    instance.stop()  # and it ends


def test_many_hints_are_few_passes(rung: Callable[..., tuple[Instance, Bell]]) -> None:
    one, bell = rung(gap_s=0.25)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.wait(0.001):
            bell.ring()

    thread = threading.Thread(target=hammer, daemon=True)
    thread.start()
    assert one.wait(lambda: len(one.passes) == 4)
    stop.set()
    thread.join()
    starts = [at for at, _ in one.passes]
    assert all(later - earlier >= 0.25 for earlier, later in pairwise(starts))


def test_hints_that_come_together_are_one_pass(rung: Callable[..., tuple[Instance, Bell]]) -> None:
    one, bell = rung(gather_s=0.2, gap_s=0.0)
    rang_at = monotonic()
    for _ in range(3):
        bell.ring()
    assert one.wait(lambda: len(one.passes) == 1)
    assert one.passes[0][0] - rang_at >= 0.2
    bell.ring()
    assert one.wait(lambda: len(one.passes) >= 2)
    assert len(one.passes) == 2


def test_a_hint_during_a_pass_is_not_lost(rung: Callable[..., tuple[Instance, Bell]]) -> None:
    one, bell = rung()

    def once_more() -> None:
        one.during = lambda: None
        bell.ring()

    one.during = once_more
    bell.ring()
    assert one.wait(lambda: len(one.passes) == 2)


def test_a_pass_under_way_elsewhere_is_waited_for(rung: Callable[..., tuple[Instance, Bell]]) -> None:
    """It may have read the book before the change that the hint is about."""
    one, bell = rung()
    lock, store = lease_of(one.ports, RECONCILE), one.ports.store
    assert store.take_lock(lock, "timer", LEASE, Deadline(monotonic()))
    bell.ring()
    assert not _changes_within(one, 0.3)
    with store.write() as tx:
        tx.free_lock(lock, "timer")
    assert one.wait(lambda: len(one.passes) == 1)


def _changes_within(one: Instance, seconds: float) -> bool:
    with one._changed:
        return one._changed.wait_for(lambda: bool(one.passes), seconds)


def test_a_broker_that_fails_ends_nothing(
    rung: Callable[..., tuple[Instance, Bell]], sim: FyersSim, desk: WireDesk
) -> None:
    one, bell = rung()
    order = desk.bought()
    sim.faults.set("GET /orders", "http_500")
    bell.ring()
    assert one.wait(lambda: one.failed == 1)
    sim.faults.clear()
    sim.fill(broker_id(order))
    bell.ring()
    assert one.becomes(order, Status.FILLED)


def test_a_mistake_of_ours_ends_nothing(
    rung: Callable[..., tuple[Instance, Bell]], desk: WireDesk, caplog: pytest.LogCaptureFixture
) -> None:
    one, bell = rung(renew_s=0.05)
    whole = desk.reconcile
    desk.reconcile = None  # type: ignore[assignment]
    bell.ring()
    assert one.wait(lambda: len(one.passes) == 1)
    desk.reconcile = whole
    bell.ring()
    assert one.wait(lambda: len(one.passes) == 2)
    assert "AttributeError" in caplog.text


def test_one_process_listens_and_another_takes_over(
    desk: WireDesk, server: OrderSocketSim, sim: FyersSim, tmp_path: Path
) -> None:
    one = Instance(desk, server.url, renew_s=0.05)
    one.updates.start()
    assert server.wait(lambda seen: seen["subscribed"] == 1)
    second = WireDesk(tmp_path, sim, desk.sim_clock, url=desk.url)
    other = Instance(second, server.url, renew_s=0.05)
    tries = threading.Semaphore(0)
    take = second.store.take_lock

    def counted(name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        tries.release()
        return take(name, owner, ttl, deadline)

    second.store.take_lock = counted  # type: ignore[method-assign]
    other.updates.start()
    for _ in range(4):
        assert tries.acquire(timeout=WITHIN_S)
    assert (server.seen["connections"], other.feed.connected) == (1, False)
    one.stop()
    assert server.wait(lambda seen: seen["subscribed"] == 2)
    other.stop()
    second.close()


def test_at_its_end_it_gives_its_leases_back(instance: Instance, server: OrderSocketSim) -> None:
    instance.updates.start()
    assert server.wait(lambda seen: seen["subscribed"] == 1)
    instance.stop()
    at_once = Deadline(monotonic())
    for lock in (instance.updates._listening, lease_of(instance.ports, RECONCILE)):
        assert instance.ports.store.take_lock(lock, "next", LEASE, at_once)


def test_it_is_wired_in_live_mode_with_an_address_and_nowhere_else(tmp_path: Path) -> None:
    live = load(
        trading_mode="live",
        fyers_app_id="X-200",
        fyers_access_token="given-token",
        instance_dir=tmp_path,
        fyers_order_socket_url="wss://socket.fyers.in/trade/v3",
    )
    metrics, clock = Metrics(), SystemClock()
    feed = order_feed_of(live, Given(), clock, metrics)
    assert isinstance(feed, OrderSocket)
    assert with_feed({}, feed)["order_socket"]() is None
    feed.count("hint")
    page, _ = metrics.page()
    assert b'order_feed_events_total{event="hint"} 1.0' in page
    assert b"order_feed_connected 0.0" in page
    for changes in ({"trading_mode": "paper"}, {"fyers_order_socket_url": ""}):
        other = load(**(live.model_dump() | changes))
        assert order_feed_of(other, Given(), clock, metrics) is None
    assert with_feed({}, None) == {}
