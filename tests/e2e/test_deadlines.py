"""Every call to the broker ends by its deadline, and every alert has its answer, whatever the broker does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from app.brokers.fyers import sdk
from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.login import StaticTokens
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import NotSent, Outcome, Unknown
from app.errors import BrokerReadFailed
from app.wiring import SystemClock
from tests.e2e.service import Answer, Service
from tests.fyers_sim import FyersSim
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.unit.fyers_calls import client_of
from tests.unit.raw_peer import Caller, Peer, Script

pytestmark = [pytest.mark.slow, pytest.mark.alone]

sdk.load()  # as at a start: its import would eat a short deadline
BUDGET_S = 0.4
GRACE_S = 0.1
ANSWERED_WITHIN_S = 2.2
ORDER = Ticket("NSE:X", Side.BUY, 65, Product.INTRADAY, "ABCD1", Decimal("15.00"), Decimal("25.00"))


def drip_head(caller: Caller) -> None:
    caller.request()
    caller.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500)


def drip_body(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    caller.drip(b"x" * 500)


def hang_after_send(caller: Caller) -> None:
    caller.request()
    caller.hang()


SLOW: list[Script] = [drip_head, drip_body, hang_after_send]
SILENT: list[Callable[[], HangAtConnect | HangAtTls]] = [HangAtConnect, HangAtTls]


def broker_at(url: str) -> FyersBroker:
    clock = SystemClock()
    return FyersBroker(client_of(url), "X-200", StaticTokens("t", clock.now()), clock)


def placed_in_time(url: str) -> Outcome:
    with closing(broker_at(url)) as broker:
        deadline = Deadline(monotonic() + BUDGET_S)
        with broker.exchange(deadline) as exchanger:
            outcome = exchanger.place(ORDER, lambda: None)
        assert monotonic() < deadline.at + GRACE_S
    return outcome


def read_fails_in_time(url: str) -> None:
    with closing(broker_at(url)) as broker:
        deadline = Deadline(monotonic() + BUDGET_S)
        with broker.exchange(deadline) as exchanger, pytest.raises(BrokerReadFailed):
            exchanger.quotes(["NSE:X"])
        assert monotonic() < deadline.at + GRACE_S


@pytest.mark.quiet
@pytest.mark.parametrize("script", SLOW)
def test_an_order_that_was_written_is_unknown_at_the_deadline(script: Script) -> None:
    with Peer(script) as peer:
        assert isinstance(placed_in_time(peer.url), Unknown)
        assert len(peer.requests) == 1
    with Peer(script) as peer:
        read_fails_in_time(peer.url)


@pytest.mark.quiet
@pytest.mark.parametrize("silent", SILENT)
def test_an_order_that_never_left_is_not_sent_at_the_deadline(
    silent: Callable[[], HangAtConnect | HangAtTls],
) -> None:
    with silent() as peer:
        assert isinstance(placed_in_time(peer.url), NotSent)
        read_fails_in_time(peer.url)


def answered_in_time(service: Service, **fields: Any) -> Answer:
    started = monotonic()
    answer = service.alert(strikeprice=24500, lots=1, **fields)
    assert monotonic() - started < ANSWERED_WITHIN_S, answer.body
    return answer


KEYED: dict[str, Any] = {"idempotency_key": "k1"}
BOTH: tuple[dict[str, Any], ...] = (KEYED, {})
"""A sender's own key, and the one that is made from the alert."""


@pytest.mark.parametrize("fault", ["hang", "hang_created", "drip_headers", "drip_body"])
def test_a_lost_answer_is_in_doubt_and_is_never_sent_again(
    sim: FyersSim, service: Service, fault: str
) -> None:
    for count, fields in enumerate(BOTH, 1):
        sim.faults.next_order(fault, seconds=10 if fault.startswith("hang") else 0.2)
        first = answered_in_time(service, **fields)
        assert (first.status, first.body["status"]) == (202, "in_doubt"), first.body
        sim.faults.clear()
        again = answered_in_time(service, **fields)
        assert (again.status, again.body["order_id"]) == (202, first.body["order_id"]), again.body
        assert again.headers["idempotent-replayed"] == "true"
        assert len(sim.ledger.orders()) == count


@pytest.mark.parametrize(
    ("fault", "keys"),
    [
        *((fault, BOTH) for fault in ("hang", "html_503", "http_500", "truncated", "drip_body")),
        ("rate_429", (KEYED,)),  # after a second one on a day entries stop
        ("rate_429", ({},)),
    ],
)
def test_a_failed_price_read_burns_no_key(
    sim: FyersSim, service: Service, fault: str, keys: tuple[dict[str, Any], ...]
) -> None:
    for count, fields in enumerate(keys, 1):
        sim.faults.set("GET /data/quotes", fault, seconds=10 if fault == "hang" else 0.2)
        first = answered_in_time(service, **fields)
        assert first.status == 503, first.body
        assert len(sim.ledger.orders()) == count - 1
        sim.faults.clear()
        again = answered_in_time(service, **fields)
        give_up = monotonic() + 10
        while (
            fault == "rate_429" and again.status == 503 and monotonic() < give_up
        ):  # its Retry-After is kept
            again = answered_in_time(service, **fields)
        assert (again.status, again.body["status"]) == (200, "accepted"), again.body
        assert "idempotent-replayed" not in again.headers
        assert len(sim.ledger.orders()) == count


def test_an_answer_without_a_price_burns_no_key(sim: FyersSim, service: Service) -> None:
    path = "/api/v1/contracts?symbol=NIFTY&expiry=WEEKLY&strike=24500&type=CE"
    found = service.get(path)
    assert found.status == 200, found.body
    ticker = found.body["symbol"]
    for count, fields in enumerate(BOTH, 1):
        for price in (None, 0):
            if price is None:
                sim.remove_quote(ticker)
            else:
                sim.set_quote(ticker, price)
            refused = answered_in_time(service, **fields)
            assert (refused.status, refused.body["code"]) == (400, "ltp_unavailable"), refused.body
        assert len(sim.ledger.orders()) == count - 1
        sim.set_quote(ticker, 100)
        again = answered_in_time(service, **fields)
        assert (again.status, again.body["status"]) == (200, "accepted"), again.body
        assert len(sim.ledger.orders()) == count


def children(parent: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], check=False, capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_the_cost_of_a_start_and_of_a_worker(service: Service) -> None:
    service.stop()
    started = time.monotonic()
    service.start()
    cold = time.monotonic() - started
    assert service.alert(strikeprice=24500, lots=1).status == 200
    assert service.process is not None
    sizes = [resident_mb(pid) for pid in children(service.process.pid)]
    sys.stdout.write(
        f"\nstart to a served request {cold:.2f} s; workers {[round(size) for size in sizes]} MB\n"
    )
    assert sizes
    assert max(sizes) < 150
