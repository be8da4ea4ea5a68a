"""A strategy that fires without end, against the real store: what it gets, and that its exit still passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from app.domain.limits import Limits, Runaway
from app.domain.order import Order
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.desk import Desk
from app.service.place_order import PlaceOrder
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import LOT, SCOPE, a_contract, a_policy, an_alert
from tests.fakes import FakeBroker, FakeClock, FakeContracts, FakeNotifier
from tests.limits import size

pytestmark = pytest.mark.slow
ALERTS, MOST = size(100_000, 2_000), 100
HOURS_S = 20_000
"""Over which they come, so that they are of one day."""
LIMITS = Limits(
    max_lots=1,
    max_orders_per_day=MOST,
    max_orders_per_hour=240,
    max_orders_per_minute=20,
    runaway=Runaway(30, 60),
)


def test_it_gets_the_day_cap_at_most_then_reducing_by_itself_and_its_exit_passes(
    sqlite_url: str, record_property: Callable[[str, object], None]
) -> None:
    """A bar of fifteen seconds each for an hour, then one alert a second or more: the runaway counts refused ones too."""
    clock, notifier = FakeClock(), FakeNotifier()
    broker, store = FakeBroker(clock), SqlStore(Database(sqlite_url, clock), clock)
    store.ensure_scope(SCOPE)
    contracts = FakeContracts([a_contract(freeze=LOT * MOST)])
    desk = Desk(store, broker, contracts, clock, SCOPE, a_policy(limits=LIMITS), notifier)

    def alert(action: str, number: int) -> Order:
        said = an_alert(action, f"alert {number}", strategy="loop", received_at=clock.now())
        return PlaceOrder(desk)(said, request_id="r", started=clock.monotonic()).order

    codes: Counter[str | None] = Counter()
    for number in range(ALERTS):
        codes[alert("BUY", number).code] += 1
        clock.advance(15 if number < 240 else min(1.0, HOURS_S / ALERTS))
    with store.read() as tx:
        state = tx.state_change(SCOPE)
    assert codes[None] == len(broker.ledger) == MOST
    assert set(codes) == {None, "cap_orders_day", "runaway", "trading_state"}
    assert (state.state, state.by) == (TradingState.REDUCING, "runaway")
    assert notifier.pages == ["runaway"]
    exited = alert("EXIT", ALERTS)
    assert (exited.status, exited.quantity) == (Status.ACCEPTED, LOT * MOST)
    assert set(broker.net.values()) == {0}
    record_property("measured", f"{ALERTS} alerts: {codes[None]} orders, {state.state}, {notifier.pages}")
    store.close()
