"""The refusal "Algo orders are not allowed from this app", as the order's reason tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import StaticTokens
from app.brokers.fyers.not_allowed import explained, seen_address
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import Refused
from tests.fakes import FakeClock
from tests.fyers_sim import FyersSim, SimClock, nifty_ticker

MORNING = datetime(2026, 9, 9, 4, 20, tzinfo=UTC)


def test_a_refusal_of_algo_orders_names_its_four_causes_and_the_apps_ending() -> None:
    refused = Refused("-50", "Algo orders are not allowed from this app")
    text = explained(refused, "SECRETAPP-100").message
    for word in ("(1)", "(2)", "(3)", "(4)", "ends in -100", "static IP", "Order Placement", "preflight"):
        assert word in text
    assert "SECRETAPP" not in text
    assert "(unknown here)" in text
    assert "is empty" in explained(refused, "").message
    assert explained(Refused("-50", "Insufficient funds"), "A-100").message == "Insufficient funds"


def test_the_brokers_own_refusal_comes_out_explained(tmp_path: Path) -> None:
    address = seen_address(tmp_path)
    address.keep("203.0.113.7")
    with FyersSim(clock=SimClock(MORNING)) as sim:
        sim.faults.next_order("algo_restricted")
        client = FyersClient(sim.base_url, sim.data_url, connect_timeout_s=5, read_timeout_s=5)
        tokens, clock = StaticTokens("t", MORNING), FakeClock(MORNING)
        broker = FyersBroker(client, sim.tokens.app_id, tokens, clock, address)
        ticket = Ticket(nifty_ticker(MORNING.date()), Side.BUY, 65, Product.INTRADAY, None)
        with broker.exchange(Deadline(monotonic() + 5)) as exchange:
            outcome = exchange.place(ticket, lambda: None)
        broker.close()
    assert isinstance(outcome, Refused)
    assert "this one ends in -200" in outcome.message
    assert "203.0.113.7, as seen at" in outcome.message
