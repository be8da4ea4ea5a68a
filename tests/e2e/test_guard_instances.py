"""Three running services with one Redis and one broker: what they know of a sick one, judged by the broker's ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.service import Answer, Service
from tests.e2e.test_guard import QUOTES, SLOWED_AT_MOST_S, live
from tests.fyers_sim import FyersSim
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.quiet]

FAIL_MAX = 5
RESET_S = 2.0
READ_TRIES = 2


class Three:
    """Each has a database of its own: what they share is the broker, the app and Redis."""

    def __init__(self, sim: FyersSim, redis: RedisServer, directory: Path, stack: ExitStack) -> None:
        self.sim, self.redis, self.services, self.number = sim, redis, [], 0
        env = {
            "REDIS_URL": redis.url,
            "BREAKER_FAIL_MAX": str(FAIL_MAX),
            "BREAKER_RESET_SECONDS": str(RESET_S),
        }
        for name in ("one", "two", "three"):
            (directory / name).mkdir()
            self.services.append(stack.enter_context(live(sim, directory / name, **env)))

    def alert(self, service: Service) -> tuple[Answer, float]:
        self.number += 1
        started = time.perf_counter()
        answer = service.alert(strikeprice=24500, lots=1, idempotency_key=f"k{self.number}")
        return answer, time.perf_counter() - started

    def codes(self) -> list[str | int]:
        """One alert at each: its code, or 200."""
        answers = [self.alert(service)[0] for service in self.services]
        return [a.body.get("code", "") if a.status != 200 else 200 for a in answers]

    def trip(self) -> None:
        """Failed price reads at the first one alone; then each of the three has heard of it."""
        self.sim.faults.set(QUOTES, "http_500")
        asked = self.sim.ledger.counts.get(QUOTES, 0)
        for _ in range(FAIL_MAX):
            answer, _ = self.alert(self.services[0])
            assert (answer.status, answer.body["code"]) != (503, "breaker_open"), answer.body
        assert self.sim.ledger.counts[QUOTES] - asked == FAIL_MAX * READ_TRIES
        assert self.codes() == ["breaker_open"] * 3
        assert self.sim.ledger.counts[QUOTES] - asked == FAIL_MAX * READ_TRIES

    def calls(self) -> int:
        return sum(n for path, n in self.sim.ledger.counts.items() if "master" not in path)

    def until_all_accept(self) -> None:
        give_up = time.monotonic() + 4 * RESET_S + 5
        while self.codes() != [200, 200, 200]:
            assert time.monotonic() < give_up
            time.sleep(0.1)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    masters = paper_master(ist_date(SystemClock().now()))
    with ExitStack() as stack:
        sim = stack.enter_context(
            FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False, log_reads=True)
        )
        yield Three(sim, stack.enter_context(RedisServer(tmp_path)), tmp_path, stack)


def test_three_services_open_together_send_one_probe_and_recover_together(three: Three) -> None:
    three.trip()
    three.sim.faults.set(QUOTES, "hang")
    time.sleep(RESET_S + 0.1)
    before = three.calls()
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(three.alert, three.services * 8))
    assert three.calls() - before == 1, "one read, of 24 alerts at three services"
    codes = [answer.body["code"] for answer, _ in answers]
    assert codes.count("breaker_open") == 23, codes
    assert {answer.status for answer, _ in answers} == {503}
    assert three.codes() == ["breaker_open"] * 3, "the probe failed: the wait began anew, for all"
    assert three.sim.ledger.orders() == []
    three.sim.faults.clear()
    three.sim.release_hangs()
    three.until_all_accept()


@pytest.mark.parametrize("blow", ["kill", "hang", "flush"])
def test_no_order_before_a_read_when_redis_goes_while_the_breaker_is_open(three: Three, blow: str) -> None:
    three.until_all_accept()
    usual = max(three.alert(service)[1] for service in three.services * 3)
    three.trip()
    placed = len(three.sim.ledger.orders())
    getattr(three.redis, blow)()
    ends = time.monotonic() + 2.5 * RESET_S
    taken = []
    while time.monotonic() < ends:  # over two moments at which a probe is due, and fails
        for service in three.services:
            answer, took = three.alert(service)
            assert answer.status == 503, answer.body
            taken.append(took)
        time.sleep(0.05)
    assert len(three.sim.ledger.orders()) == placed
    assert max(taken) < usual + SLOWED_AT_MOST_S
    three.sim.faults.clear()
    three.until_all_accept()
    since = lines_after_order(three.sim, placed)
    first_order = [x["kind"] for x in since].index("order")
    reads = [x for x in since[:first_order] if x["kind"] == "read" and x["endpoint"] == QUOTES]
    assert reads[-1]["fault"] is None, "a read that succeeded stands right before the first order"
    assert {x["fault"] for x in reads[:-1]} == {"http_500"}


def lines_after_order(sim: FyersSim, number: int) -> list[dict[str, object]]:
    """The ledger after its order of that number."""
    lines = sim.ledger.lines()
    last = [n for n, x in enumerate(lines) if x["kind"] == "order"][number - 1]
    return lines[last + 1 :]


@pytest.mark.parametrize("blow", ["kill", "hang", "flush"])
def test_redis_going_while_the_breaker_is_closed_slows_and_stops_nobody(three: Three, blow: str) -> None:
    three.until_all_accept()
    usual = max(three.alert(service)[1] for service in three.services * 3)
    getattr(three.redis, blow)()
    for _ in range(3):
        for service in three.services:
            answer, took = three.alert(service)
            assert answer.status == 200, answer.body
            assert took < usual + SLOWED_AT_MOST_S
        time.sleep(0.5)
