"""Several instances with one Redis, and with that Redis killed, hung and emptied. The Redis is a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pybreaker
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.brokers.guard import CallBudget, Rates, SharedRedis, connect
from app.brokers.guard.budget import TRUST_AFTER_S
from app.domain.deadline import Deadline
from app.domain.outcome import Accepted, NotSent, Outcome
from app.errors import BrokerReadFailed
from tests.fake_store import FakeClock
from tests.fakes import FakeBroker, FakeNotifier
from tests.guard_desk import LOST, RESET_S, WIDE, GuardDesk
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.quiet]

SLOWED_AT_MOST_S = 0.25
REST_S = 1.0
KEY = "{guard}:breakers"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


class Instances:
    """Three instances on one clock before one broker, each with its own connections."""

    def __init__(self, server: RedisServer) -> None:
        self.server, self.clock = server, FakeClock()
        self.broker = FakeBroker(self.clock)
        self.desks = [self.another() for _ in range(3)]

    def another(self) -> GuardDesk:
        shared = SharedRedis(connect(self.server.url), self.clock.monotonic)
        return GuardDesk(self.clock, self.broker, shared)

    def trip(self, desk: GuardDesk) -> None:
        self.broker.next_place = [LOST] * 5
        assert [desk.place() for _ in range(5)] == [LOST] * 5

    def all_know(self) -> None:
        """The breaker is open, and each instance has seen it."""
        self.trip(self.desks[0])
        assert self.refused() == 3

    def refused(self) -> int:
        before = len(self.broker.ledger)
        outcomes = [desk.place() for desk in self.desks]
        no = [o for o in outcomes if isinstance(o, NotSent) and o.code == "breaker_open"]
        assert len(self.broker.ledger) - before == len(outcomes) - len(no)
        return len(no)


@pytest.fixture
def three(server: RedisServer) -> Instances:
    return Instances(server)


def timed(work: Callable[[], Outcome]) -> tuple[Outcome, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def at_once(desks: list[GuardDesk], work: Callable[[GuardDesk], object]) -> list[object]:
    found: list[object] = []

    def run(desk: GuardDesk) -> None:
        try:
            found.append(work(desk))
        except BrokerReadFailed as error:
            found.append(error.code)

    threads = [threading.Thread(target=run, args=(desk,)) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_one_instance_trips_all_and_one_read_lets_all_out(three: Instances) -> None:
    three.all_know()
    three.clock.advance(RESET_S)
    assert three.refused() == 3, "no order is the probe, on any instance"
    three.desks[1].read()
    assert three.refused() == 0
    assert [desk.told for desk in three.desks] == [["breaker_open", "breaker_closed"]] * 3


def test_failures_count_together(three: Instances) -> None:
    three.broker.next_place = [LOST] * 5
    for desk in (*three.desks, *three.desks[:2]):
        assert desk.place() == LOST
    assert three.refused() == 3


def test_a_success_anywhere_begins_the_count_anew(three: Instances) -> None:
    first, second, _ = three.desks
    three.broker.next_place = [LOST] * 4
    for _ in range(4):
        first.place()
    assert isinstance(second.place(), Accepted)
    three.broker.next_place = [LOST] * 4
    for _ in range(4):
        first.place()
    assert three.refused() == 0


def test_three_instances_send_one_probe(three: Instances) -> None:
    three.all_know()
    three.clock.advance(RESET_S)
    three.broker.fail = {"quotes"}
    for desk in three.desks:  # reads that fail on too: now both breakers are open
        for _ in range(5):
            with pytest.raises(BrokerReadFailed):
                desk.read()
    three.clock.advance(RESET_S)
    three.broker.calls.clear()
    others_refused, refused = threading.Event(), []

    def hold() -> None:
        others_refused.wait(5)

    three.broker.on["quotes"] = hold

    def probe_or_be_refused(desk: GuardDesk) -> object:
        try:
            return desk.read()
        except BrokerReadFailed as error:
            if error.code == "breaker_open":
                refused.append(error)
                if len(refused) == 2:
                    others_refused.set()
            raise

    at_once(three.desks, probe_or_be_refused)
    assert len(refused) == 2
    assert three.broker.calls == ["quotes"]
    for desk in three.desks:
        with pytest.raises(BrokerReadFailed):
            desk.read()
    assert three.broker.calls == ["quotes"], (
        "the probe failed, and nobody tries before the time is over again"
    )
    three.broker.fail, three.broker.on = set(), {}
    three.clock.advance(RESET_S)
    three.desks[2].read()
    assert three.refused() == 0


def test_whoever_gets_the_turn_late_looks_again(three: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another instance's probe failed between this one's look and its turn: the wait has begun anew."""
    three.all_know()
    three.clock.advance(RESET_S)
    first, second, _ = three.desks
    take = second.guard._turn.take

    def late(seconds: float) -> str | None:
        three.broker.fail = {"quotes"}
        with pytest.raises(BrokerReadFailed):
            first.read()
        three.broker.fail = set()
        return take(seconds)

    monkeypatch.setattr(second.guard._turn, "take", late)
    second.read()
    assert three.refused() == 3, "the second's read was no probe"


def test_a_probe_whose_process_died_does_not_bar_the_next(three: Instances, server: RedisServer) -> None:
    three.all_know()
    three.clock.advance(RESET_S)
    server.say(b"SET {guard}:probe somebody PX 30\r\n")
    three.desks[0].read()
    assert three.refused() == 3, "its read was no probe"
    time.sleep(0.05)
    three.desks[0].read()
    assert three.refused() == 0


@pytest.mark.parametrize("blow", ["kill", "hang"])
def test_open_stays_open_without_redis_and_each_goes_by_its_own_read(three: Instances, blow: str) -> None:
    three.all_know()
    getattr(three.server, blow)()
    times = []
    for _ in range(2):
        for desk in three.desks:
            outcome, took = timed(desk.place)
            times.append(took)
            assert isinstance(outcome, NotSent)
        three.clock.advance(REST_S)
    assert max(times) < SLOWED_AT_MOST_S
    three.clock.advance(RESET_S)
    assert three.refused() == 3, "time alone lets no order out"
    for left, desk in enumerate(three.desks):
        assert three.refused() == 3 - left
        desk.read()
    assert three.refused() == 0


@pytest.mark.parametrize("blow", ["kill", "hang"])
def test_closed_goes_on_without_redis(three: Instances, blow: str) -> None:
    assert three.refused() == 0
    getattr(three.server, blow)()
    taken = [timed(desk.place) for desk in three.desks * 2]
    assert all(isinstance(outcome, Accepted) for outcome, _ in taken)
    assert max(took for _, took in taken) < SLOWED_AT_MOST_S
    assert max(took for _, took in taken[3:]) < 0.05, "only the first of each paid"
    three.trip(three.desks[0])
    assert three.refused() == 1, "each by what it knows"


def test_a_hung_redis_slows_nobody_of_many_at_once(three: Instances) -> None:
    desk = three.desks[0]
    assert isinstance(desk.place(), Accepted)
    three.server.hang()
    for _ in range(2):
        taken = at_once([desk] * 16, lambda d: timed(d.place))
        assert len(taken) == 16
        assert all(isinstance(t, tuple) and isinstance(t[0], Accepted) for t in taken)
        assert max(t[1] for t in taken if isinstance(t, tuple)) < SLOWED_AT_MOST_S
        three.clock.advance(REST_S)


def test_a_flushed_redis_closes_nothing(three: Instances, server: RedisServer) -> None:
    three.all_know()
    server.flush()
    assert three.refused() == 3
    assert isinstance(three.another().place(), NotSent), "the others told it again"
    three.clock.advance(RESET_S)
    server.flush()
    assert three.refused() == 3
    three.desks[0].read()
    assert three.refused() == 0
    server.flush()
    assert three.refused() == 0


def test_a_redis_that_was_away_while_the_breaker_closed_learns_it(three: Instances) -> None:
    first = three.desks[0]
    three.all_know()
    three.server.hang()
    three.clock.advance(RESET_S)
    first.read()
    assert isinstance(first.place(), Accepted)
    three.server.resume()
    three.clock.advance(REST_S)
    assert isinstance(first.place(), Accepted), "what Redis remembers is older than the read"
    assert three.refused() == 0


def test_pybreakers_own_storage_would_read_closed(server: RedisServer) -> None:
    """Why it is not used: with its Redis gone it says closed, whatever the process knew."""
    client = Redis.from_url(server.url, retry=Retry(NoBackoff(), 0))
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client)
    breaker = pybreaker.CircuitBreaker(state_storage=storage)
    breaker.open()
    server.kill()
    assert breaker.current_state == pybreaker.STATE_CLOSED


def test_one_thread_alone_finds_out_whether_redis_is_back(server: RedisServer) -> None:
    clock = FakeClock()
    shared = SharedRedis(connect(server.url), clock.monotonic)
    server.kill()
    asked = []

    def ask(redis: object) -> object:
        asked.append(1)
        return redis.ping()  # type: ignore[attr-defined]

    assert [shared.ask(ask) for _ in range(50)] == [None] * 50
    assert len(asked) == 1
    clock.advance(REST_S)
    assert [shared.ask(ask) for _ in range(50)] == [None] * 50
    assert len(asked) == 2
    server.start()
    assert shared.ask(ask) is None, "it rests"
    clock.advance(REST_S)
    assert shared.ask(ask) == (True,)
    assert shared.ask(ask) == (True,)


def test_a_429_on_one_instance_holds_all(server: RedisServer) -> None:
    clock = FakeClock()
    notifier = FakeNotifier()
    one, two = (
        CallBudget(WIDE, clock, notifier, SharedRedis(connect(server.url), clock.monotonic)) for _ in range(2)
    )
    one.heed(7)
    assert (over := two.take_read(reserved=True)) is not None
    assert (over.code, over.retry_after_s) == ("broker_rate_limited", 7)
    clock.advance(7)
    assert two.take_read(reserved=False) is None
    two.heed(3)
    assert notifier.pages == ["rate_limit_breached"]
    clock.advance(3)
    assert (stopped := one.take_order(reserved=False)) is not None
    assert stopped.code == "broker_rate_limited"
    assert one.take_order(reserved=True) is None


def test_an_instance_whose_clock_was_ahead_holds_nobody_back(server: RedisServer) -> None:
    ahead, right, notifier = FakeClock(), FakeClock(), FakeNotifier()
    rates = Rates(calls_per_minute=10, calls_per_second=100)
    one, two = (
        CallBudget(rates, clock, notifier, SharedRedis(connect(server.url), clock.monotonic))
        for clock in (ahead, right)
    )
    ahead.advance(3600)
    for _ in range(5):
        assert one.take_read(reserved=True) is None
    one.heed(40)
    ahead.set_back(3600)
    assert [two.take_read(reserved=True) for _ in range(10)] == [None] * 10
    assert two.take_read(reserved=True) is not None
    two.heed(3)
    assert (over := one.take_read(reserved=True)) is not None
    assert over.retry_after_s == 40, "its own word holds for as long as was asked for"
    for clock in (ahead, right):
        clock.advance(63)
    assert one.take_read(reserved=True) is None
    for clock in (ahead, right):
        clock.advance(TRUST_AFTER_S)
    assert two.take_read(reserved=True) is None
    assert two._trusted, "what was ahead of it is no trouble that is yet to come"


def test_an_exit_s_room_is_what_all_instances_leave_it(server: RedisServer) -> None:
    """Eight calls of another instance within 0.4 s: the third free place comes 0.6 s later, and not only after a second."""
    clock = FakeClock()
    broker = FakeBroker(clock)
    one, other = (
        GuardDesk(clock, broker, SharedRedis(connect(server.url), clock.monotonic), Rates(processes=2))
        for _ in range(2)
    )
    for _ in range(2):  # from the second on Redis has seen two whole minutes, and decides alone
        for desk in (one, other):
            desk.guard.budget.take_read(reserved=True)
        clock.advance(2 * TRUST_AFTER_S)
    for _ in range(8):
        other.on(lambda x: x.positions())
        clock.advance(0.05)
    assert one.guard.room(Deadline(clock.monotonic() + 0.8)) is None
    assert other.guard.room(Deadline(clock.monotonic() + 0.7)) is not None
