"""Exits on the simulated broker: what is held is sold once, and nothing else is; also after a roll."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import StaticTokens
from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.domain.alert import ExpiryRule, Product
from app.domain.contract import ist_date
from app.domain.order import Mode, Order, Scope
from app.domain.status import Status
from app.service.desk import Desk as ServiceDesk
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from app.store.migrate import upgrade
from app.store.sql import connect
from tests.builders import a_policy, an_alert
from tests.e2e.service import Service
from tests.fakes import FakeNotifier
from tests.fyers_sim import FyersSim, SimClock, nifty_ticker, sample_masters

pytestmark = pytest.mark.slow

SCOPE = Scope(Mode.LIVE, "X-200")


def sold(sim: FyersSim) -> list[tuple[str, int]]:
    lines = (line["body"] for line in sim.ledger.orders())
    return [(b["symbol"], b["qty"]) for b in lines if b["side"] == -1]


def test_two_entries_under_a_cap_of_one_lot_are_closed_by_one_exit(sim: FyersSim, service: Service) -> None:
    too_many = service.alert(strikeprice=24500, lots=2)
    assert too_many.status == 422, too_many.body
    for key in ("one", "two"):
        assert service.alert(strikeprice=24500, lots=1, idempotency_key=key).status == 200
    ticker = sim.ledger.orders()[0]["body"]["symbol"]
    out = service.alert(strikeprice=24500, action="EXIT")
    assert (out.status, out.body["quantity"]) == (200, 130), out.body
    for key in ("again", "once more"):
        none = service.alert(strikeprice=24500, action="EXIT", idempotency_key=key)
        assert (none.status, none.body["code"]) == (422, "nothing_to_exit"), none.body
    service.stop()
    service.start()
    none = service.alert(strikeprice=24500, action="EXIT", idempotency_key="after a restart")
    assert (none.status, none.body["code"]) == (422, "nothing_to_exit"), none.body
    assert sold(sim) == [(ticker, 130)]


def test_what_a_hand_bought_is_never_sold(sim: FyersSim, service: Service) -> None:
    entry = service.alert(strikeprice=24500, lots=1)
    ticker = entry.body["symbol"]
    assert service.alert(strikeprice=24500, action="EXIT").status == 200
    sim.place_by_hand(ticker, 1, 65)
    none = service.alert(strikeprice=24500, action="EXIT", idempotency_key="again")
    assert (none.status, none.body["code"]) == (422, "nothing_to_exit"), none.body
    other = ticker.replace("24500", "24600")
    sim.place_by_hand(other, 1, 65)
    none = service.alert(strikeprice=24600, action="EXIT")
    assert (none.status, none.body["code"]) == (422, "nothing_to_exit"), none.body
    assert sold(sim) == [(ticker, 65)]


class Clock:
    """The simulator's day, real seconds for deadlines."""

    def __init__(self, sim_clock: SimClock) -> None:
        self._now = sim_clock

    def now(self) -> datetime:
        return self._now()

    def monotonic(self) -> float:
        return monotonic()


WEDNESDAY = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # 10:00 IST; NIFTY's weekly ends on Tuesday
NEXT_WEDNESDAY = WEDNESDAY + timedelta(weeks=1)


class Desk:
    """The service in this process: real store, real contract index, real wire; the clock can be set."""

    def __init__(self, directory: Path, sim: FyersSim, clock: SimClock) -> None:
        self.sim, self.sim_clock, self.clock = sim, clock, Clock(clock)
        url = f"sqlite:///{directory / 'orders.sqlite3'}"
        upgrade(url)
        self.store = connect(url, self.clock)
        self.store.ensure_scope(SCOPE)
        self.index = directory / "contracts"
        self.contracts = IndexedContracts(self.index, self.clock)
        client = FyersClient(sim.base_url, sim.data_url, connect_timeout_s=1, read_timeout_s=1.8)
        client.load()
        token = StaticTokens("t", clock() + timedelta(weeks=9))
        self.broker = FyersBroker(client, "X-200", token, self.clock)
        self._numbers = itertools.count(1)
        self.load(ist_date(clock()))
        desk = ServiceDesk(
            self.store, self.broker, self.contracts, self.clock, SCOPE, a_policy(), FakeNotifier()
        )
        self.place, self.reconcile = PlaceOrder(desk), Reconcile(desk)

    def load(self, on: date, without: date | None = None) -> None:
        """That morning's master, at the broker and here; `without` drops an expiry that is not listed yet."""
        files = sample_masters(on)
        if without is not None:
            mark = f"NIFTY{without:%y}{without.month}{without:%d}".encode()
            lines = files["NSE_FO.csv"].splitlines(keepends=True)
            files["NSE_FO.csv"] = b"".join(line for line in lines if mark not in line)
        self.sim.masters = files
        build_from_bytes(self.index, files)

    def advance(self, to: datetime) -> None:
        """Another day: the broker's book is today's only, so the fills are recorded before (`flask reconcile`)."""
        self.reconcile()
        self.sim_clock.advance((to - self.sim_clock()).total_seconds())
        self.load(ist_date(to))

    def alert(self, action: str, **changes: Any) -> Order:
        number = next(self._numbers)
        values: dict[str, Any] = {"product": Product.MARGIN, "received_at": self.clock.now(), **changes}
        alert = an_alert(action, None, f"body {number}", **values)
        return self.place(alert, request_id=f"r{number}", started=monotonic()).order

    def close(self) -> None:
        self.broker.close()
        self.contracts.close()
        self.store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = SimClock(WEDNESDAY, running=False)
    with FyersSim(ledger=tmp_path / "ledger.jsonl", clock=clock, rate_limits=False) as sim:
        made = Desk(tmp_path, sim, clock)
        yield made
        made.close()


@pytest.mark.parametrize("rule", list(ExpiryRule))
def test_exit_by_a_rule_closes_what_last_weeks_rule_chose(desk: Desk, rule: ExpiryRule) -> None:
    """NEXT_WEEKLY of last week is WEEKLY now: whichever rule the EXIT names, the held contract is the one."""
    held = desk.alert("BUY", expiry=ExpiryRule.NEXT_WEEKLY)
    assert (held.status, held.ticker) == (Status.ACCEPTED, nifty_ticker(ist_date(WEDNESDAY), week=1))
    desk.advance(NEXT_WEDNESDAY)
    out = desk.alert("EXIT", expiry=rule)
    assert (out.status, out.ticker, out.quantity) == (Status.ACCEPTED, held.ticker, held.quantity), out
    assert desk.alert("EXIT", expiry=rule).code == "nothing_to_exit"
    assert sold(desk.sim) == [(held.ticker, held.quantity)]


def test_exit_weekly_closes_last_weeks_weekly_though_a_nearer_one_is_listed_now(desk: Desk) -> None:
    nearer = date(2026, 9, 22)
    desk.sim_clock.advance((datetime(2026, 9, 15, 10, 15, tzinfo=UTC) - WEDNESDAY).total_seconds())
    desk.sim.market_open = True
    desk.load(date(2026, 9, 16), without=nearer)
    held = desk.alert("BUY")
    assert (held.status, held.ticker) == (Status.ACCEPTED, nifty_ticker(date(2026, 9, 29))), held
    desk.advance(NEXT_WEDNESDAY)
    fresh = desk.alert("BUY", strike=Decimal(24600))
    assert "26922" in fresh.ticker
    out = desk.alert("EXIT")
    assert (out.status, out.ticker) == (Status.ACCEPTED, held.ticker), out
    assert sold(desk.sim) == [(held.ticker, held.quantity)]


def test_what_has_ended_is_not_sold_as_this_weeks(desk: Desk) -> None:
    held = desk.alert("BUY")
    assert held.ticker == nifty_ticker(ist_date(WEDNESDAY))
    desk.advance(NEXT_WEDNESDAY)
    assert desk.alert("EXIT").code == "nothing_to_exit"
    this_week = desk.alert("BUY")
    out = desk.alert("EXIT")
    assert (out.ticker, out.quantity) == (this_week.ticker, this_week.quantity), out
    assert sold(desk.sim) == [(this_week.ticker, this_week.quantity)]


@pytest.mark.parametrize("seen_before", [False, True], ids=["nobody-looked", "a-pass-looked"])
def test_after_our_stop_a_hands_position_is_never_sold(desk: Desk, *, seen_before: bool) -> None:
    """The stop closes ours, then a hand buys the same contract and product: from the net alone that looks like ours."""
    held = desk.alert("BUY")
    place = f"{held.ticker}-MARGIN"
    desk.sim.trigger_stop(place)
    if seen_before:
        desk.reconcile()
    desk.sim.place_by_hand(held.ticker, 1, held.quantity, "MARGIN")
    out = desk.alert("EXIT")
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit"), out
    assert sold(desk.sim) == []
    assert desk.sim.exchange.positions[place].net == held.quantity


def test_a_stop_of_yesterday_is_remembered_though_the_trade_book_is_gone(desk: Desk) -> None:
    desk.sim_clock.advance((datetime(2026, 9, 15, 10, 15, tzinfo=UTC) - WEDNESDAY).total_seconds())
    desk.sim.market_open = True
    desk.load(date(2026, 9, 16), without=date(2026, 9, 22))
    held = desk.alert("BUY")
    desk.sim.trigger_stop(f"{held.ticker}-MARGIN")
    desk.advance(NEXT_WEDNESDAY)
    desk.sim.place_by_hand(held.ticker, 1, held.quantity, "MARGIN")
    out = desk.alert("EXIT")
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit"), out
    assert sold(desk.sim) == []
