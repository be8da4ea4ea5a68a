"""The breaker in the running service, live mode on the simulator, judged by the broker's own ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.service import Answer, Service
from tests.fyers_sim import FyersSim
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.alone]

QUOTES = "GET /data/quotes"
ANSWERED_WITHIN_S = 2.2
READYZ_P99_S = 0.25
SLOWED_AT_MOST_S = 0.25
RESET_S = 1.0


def live(sim: FyersSim, tmp_path: Path, **env: str) -> Service:
    fixed = {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "BREAKER_RESET_SECONDS": str(RESET_S),
        "RECONCILE_INTERVAL_SECONDS": "60",
        "ENFORCE_MARKET_HOURS": "false",
    }
    return Service(tmp_path, fixed | env)


@pytest.fixture
def quick(sim: FyersSim, tmp_path: Path) -> Iterator[Service]:
    """One lost answer trips it."""
    with live(sim, tmp_path, BREAKER_FAIL_MAX="1", BREAKER_RESET_SECONDS="30") as service:
        yield service


def test_the_order_that_trips_the_breaker_is_in_doubt_and_placed_once(sim: FyersSim, quick: Service) -> None:
    sim.faults.next_order("reset_created")
    alert = {"strikeprice": 24500, "lots": 1, "idempotency_key": "tripping"}
    first = quick.alert(**alert)
    assert (first.status, first.body["status"]) == (202, "in_doubt"), first.body
    row = quick.get(f"/api/v1/orders/{first.body['order_id']}")
    assert row.body["state"] == "IN_DOUBT", row.body
    for _ in range(3):
        again = quick.alert(**alert)
        assert (again.status, again.headers.get("idempotent-replayed")) == (202, "true"), again.body
    stopped = quick.alert(strikeprice=24600, lots=1)
    assert (stopped.status, stopped.body["code"]) == (503, "breaker_open"), stopped.body
    assert int(stopped.headers["retry-after"]) >= 1
    assert len(sim.ledger.orders()) == 1
    assert "breaker open" in quick.get("/readyz").body["checks"]["breaker"]
    assert quick.get("/readyz").status == 200
    assert quick.get("/readyz/orders").status == 503


def test_an_exit_passes_the_open_breaker_by_its_own_position_read(sim: FyersSim, quick: Service) -> None:
    assert quick.alert(strikeprice=24500, lots=1).status == 200
    sim.faults.next_order("reset")
    assert quick.alert(strikeprice=24600, lots=1).status == 202
    assert quick.alert(strikeprice=24700, lots=1).status == 503
    out = quick.alert(strikeprice=24500, action="EXIT")
    assert (out.status, out.body["side"]) == (200, "SELL"), out.body
    assert [line["body"]["side"] for line in sim.ledger.placed()] == [1, -1]


def test_it_recovers_by_one_read_without_a_restart(sim: FyersSim, tmp_path: Path) -> None:
    with live(sim, tmp_path, BREAKER_FAIL_MAX="2") as service:
        sim.faults.set(QUOTES, "http_500")
        for number in range(2):
            assert service.alert(strikeprice=24500, lots=1, idempotency_key=str(number)).status == 503
        sim.faults.clear()
        assert (
            service.alert(strikeprice=24500, lots=1, idempotency_key="early").body["code"] == "breaker_open"
        )
        assert until_accepted(service)


def until_accepted(service: Service, within_s: float = 5) -> bool:
    """An alert's own quote is the probe, once the time for it has come."""
    give_up = time.monotonic() + within_s
    number = 0
    while time.monotonic() < give_up:
        number += 1
        if service.alert(strikeprice=24500, lots=1, idempotency_key=f"again{number}").status == 200:
            return True
        time.sleep(0.1)
    return False


def timed(service: Service, path: str) -> float:
    started = time.perf_counter()
    service.get(path)
    return time.perf_counter() - started


@pytest.mark.quiet
def test_a_hung_broker_delays_nobody_for_long(sim: FyersSim, tmp_path: Path) -> None:
    with live(sim, tmp_path, BREAKER_FAIL_MAX="5") as service:
        usual = max(timed(service, "/readyz") for _ in range(30))  # on a busy machine not nothing
        sim.faults.set(QUOTES, "hang")

        def alert(number: int) -> tuple[Answer, float]:
            started = time.perf_counter()
            answer = service.alert(strikeprice=24500, lots=1, idempotency_key=f"hung{number}")
            return answer, time.perf_counter() - started

        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(alert, number) for number in range(16)]
            ready: list[float] = []
            while not all(f.done() for f in waiting):
                ready.append(timed(service, "/readyz"))
            answers = [f.result() for f in waiting]
        assert {answer.status for answer, _ in answers} == {503}
        assert max(took for _, took in answers) < ANSWERED_WITHIN_S
        assert sorted(ready)[int(len(ready) * 0.99)] < READYZ_P99_S + usual
        asked = sim.ledger.counts[QUOTES]
        answer, took = alert(99)
        assert (answer.status, answer.body["code"]) == (503, "breaker_open")
        assert took < READYZ_P99_S + usual
        assert sim.ledger.counts[QUOTES] == asked
        with ThreadPoolExecutor(
            16
        ) as pool:  # the broker still holds its ends of the calls: no thread of ours does
            after = list(pool.map(alert, range(200, 216)))
        assert [a.body["code"] for a, _ in after].count("breaker_open") >= 15, (
            "all but one that may be the probe"
        )
        assert max(took for _, took in after) < ANSWERED_WITHIN_S
        sim.faults.clear()
        sim.release_hangs()
        assert until_accepted(service)
    assert len(sim.ledger.orders()) == 1


@pytest.mark.quiet
def test_a_hung_redis_delays_no_order_for_long(sim: FyersSim, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis, live(sim, tmp_path, REDIS_URL=redis.url) as service:

        def place(key: str) -> float:
            started = time.perf_counter()
            assert service.alert(strikeprice=24500, lots=1, idempotency_key=key).status == 200
            return time.perf_counter() - started

        usual = sorted(place(f"before{n}") for n in range(5))[2]
        assert redis.say(b"KEYS *budget*\r\n") != b"*0\r\n", "it is used"
        redis.hang()
        assert max(place(f"hung{n}") for n in range(5)) < usual + SLOWED_AT_MOST_S
        redis.kill()
        assert max(place(f"killed{n}") for n in range(5)) < usual + SLOWED_AT_MOST_S
    assert len(sim.ledger.orders()) == 15


@pytest.mark.parametrize("at", ["order", "quotes"])
def test_after_a_429_nothing_is_asked_before_its_time(sim: FyersSim, tmp_path: Path, at: str) -> None:
    with live(sim, tmp_path, RECONCILE_INTERVAL_SECONDS="60") as service:
        if at == "order":
            sim.faults.next_order("rate_429", seconds=30)
        else:
            sim.faults.next(QUOTES, "rate_429", seconds=30)
        first = service.alert(strikeprice=24500, lots=1, idempotency_key="first")
        assert first.status == (422 if at == "order" else 503), first.body
        calls = dict(sim.ledger.counts)
        stopped = service.alert(strikeprice=24500, lots=1, idempotency_key="second")
        assert (stopped.status, stopped.body["code"]) == (503, "broker_rate_limited"), stopped.body
        assert 25 <= int(stopped.headers["retry-after"]) <= 30
        assert sim.ledger.counts == calls
    assert sim.ledger.placed() == []


def test_over_the_budget_nothing_is_sent(sim: FyersSim, tmp_path: Path) -> None:
    with live(sim, tmp_path, FYERS_CALLS_PER_MINUTE="10") as service:
        answers = [service.alert(strikeprice=24500, lots=1, idempotency_key=str(n)) for n in range(10)]
    refused = [a for a in answers if a.status == 503]
    assert refused
    assert {a.body["code"] for a in refused} == {"rate_budget"}
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
    assert len(sim.ledger.orders()) == len(answers) - len(refused) > 0
