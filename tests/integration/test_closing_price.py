"""What a broker's protective leg closed is worth what the leg was filled at: from the wire to an experiment's report.
And what an operator's exit closed of its holders' is worth what that exit was filled at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import select

from app.domain.alert import ADMIN_CLIENT, Product
from app.domain.experiment import Experiment, Rollout, Variant
from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import NotSent, Refused
from app.domain.status import Status
from app.service.experiments import round_trips
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from app.store.engine import Database
from app.store.sql import SqlStore
from app.store.sql_config import SqlConfig
from app.store.tables import holding_adjustments
from tests.builders import SCOPE, a_policy
from tests.service.desk import TradingDesk
from tests.wire_desk import LOT, TICKER, WireDesk


def closings(desk: WireDesk) -> list[tuple[int, Decimal | None]]:
    a = holding_adjustments.c
    with desk.store.database.read() as connection:
        return [tuple(row) for row in connection.execute(select(a.delta, a.price).order_by(a.id))]


@pytest.mark.parametrize("product", [Product.INTRADAY, Product.BO])
def test_a_stop_that_filled_is_priced_by_its_own_fill(desk: WireDesk, product: Product) -> None:
    desk.bought(product=product)
    desk.pass_on(1)
    desk.sim.trigger_stop(f"{TICKER}-{product.value}", 83.25)
    desk.pass_on(1)
    assert closings(desk) == [(-LOT, Decimal("83.25"))]


def test_a_second_stop_of_the_day_has_its_own_price(desk: WireDesk) -> None:
    for price in (83.25, 81.1):
        desk.bought()
        desk.pass_on(1)
        desk.sim.trigger_stop(f"{TICKER}-INTRADAY", price)
        desk.pass_on(1)
    assert closings(desk) == [(-LOT, Decimal("83.25")), (-LOT, Decimal("81.1"))]


def test_parts_at_several_prices_make_one_average(desk: WireDesk) -> None:
    desk.bought(lots=1)
    desk.pass_on(1)
    part = LOT // 5
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY", part, 90)
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY", LOT - part, 80)
    desk.pass_on(1)
    ((delta, price),) = closings(desk)
    assert delta == -LOT
    assert price == Decimal(part * 90 + (LOT - part) * 80) / LOT


TRIAL = Experiment("stops", (Variant("usual"), Variant("wide", 2)))
EACH = 65


class StoredDesk(TradingDesk):
    """A service on the fake broker whose rows stand in a real database. All its entries are of one experiment."""

    def __init__(self, url: str) -> None:
        super().__init__(a_policy(rollout=Rollout(experiments=(TRIAL,)), limits=Limits(max_lots=50)))
        self.database = Database(url, self.clock)
        self.desk = replace(self.desk, store=SqlStore(self.database, self.clock))
        self.desk.store.ensure_scope(SCOPE)
        self.service, self.reconcile = PlaceOrder(self.desk), Reconcile(self.desk)

    def entered(self, client: str) -> Order:
        """A lot bought at 101."""
        entry = self.held(client=client)
        self.reconcile()
        self.clock.advance(1)
        return entry

    def exit(
        self, client: str = ADMIN_CLIENT, *, price: int | None = None, filled: int | None = None
    ) -> Order:
        """Sent, and filled at `price`, if any, or a part of it."""
        self.broker.fills = False
        out = self.alert("EXIT", client=client).order
        self.broker.fills = True
        if price is not None:
            self.filled(out, price, filled)
        return out

    def filled(self, order: Order, price: int, quantity: int | None = None) -> None:
        whole = order.quantity if quantity is None else quantity
        self.broker.fill_part(order.broker_order_id or "", whole, Decimal(price))
        self.pass_on()

    def pass_on(self) -> None:
        self.clock.advance(1)
        self.reconcile()

    def profits(self, *entries: Order) -> list[int | str]:
        """What the report has each at: open, closed at an unknown price, or rupees."""
        trips = round_trips(SqlConfig(self.database).trials(SCOPE, TRIAL))
        assert set(trips) == {e.id for e in entries}
        found = [trips[e.id] for e in entries]
        return ["open" if t.left else int(t.profit) if t.priced else "unpriced" for t in found]


@pytest.fixture
def traded(database_url: str) -> Iterator[StoredDesk]:
    made = StoredDesk(database_url)
    yield made
    made.database.close()


def test_an_operator_s_exit_closes_each_holder_s_at_its_own_price(traded: StoredDesk) -> None:
    """Also the operator's own; and what a client enters before it has filled is another trip."""
    entries = [traded.entered(client) for client in ("anna", ADMIN_CLIENT, "ben")]
    out = traded.exit()
    assert (out.status, out.quantity) == (Status.ACCEPTED, 3 * EACH)
    assert traded.profits(*entries) == ["open"] * 3
    later = [traded.entered(client) for client in ("anna", ADMIN_CLIENT)]
    traded.filled(out, 111)
    assert traded.profits(*entries, *later) == [10 * EACH] * 3 + ["open"] * 2
    traded.exit("anna", price=100)
    assert traded.profits(*entries, *later) == [10 * EACH] * 3 + [-EACH, "open"]


def test_an_operator_s_exit_that_was_rejected_closed_nothing(traded: StoredDesk) -> None:
    entries = [traded.entered(client) for client in ("anna", "ben")]
    traded.broker.next_place = [Refused("margin", "not enough")]
    assert traded.exit().status is Status.REJECTED
    traded.pass_on()
    later = traded.entered("anna")
    assert traded.profits(*entries, later) == ["open"] * 3
    traded.exit("ben", price=102)
    assert traded.profits(*entries, later) == ["open", EACH, "open"]
    traded.exit(price=121)
    assert traded.profits(*entries, later) == [20 * EACH, EACH, 20 * EACH]


@pytest.mark.parametrize("ends", [True, False])
def test_an_operator_s_exit_that_filled_in_part_closed_that_part(traded: StoredDesk, *, ends: bool) -> None:
    """The first holder's; what the others hold is theirs again, or will be."""
    entries = [traded.entered(client) for client in ("anna", "ben")]
    out = traded.exit(price=111, filled=EACH)
    if ends:
        assert traded.broker.cancel(out.broker_order_id or "")
        traded.pass_on()
    assert traded.profits(*entries) == [10 * EACH, "open"]
    if ends:
        traded.exit("ben", price=100)
        assert traded.profits(*entries) == [10 * EACH, -EACH]
    else:
        traded.filled(out, 111, EACH)
        assert traded.profits(*entries) == [10 * EACH] * 2


def test_an_operator_s_exit_is_counted_once_whatever_its_attempts(traded: StoredDesk) -> None:
    """One that was not sent gives back, and takes over again with its next attempt."""
    entries = [traded.entered(client) for client in ("anna", "ben")]
    traded.broker.next_place = [NotSent("breaker_open", "no")]
    assert traded.alert("EXIT", "k", client=ADMIN_CLIENT).order.status is Status.NOT_SENT
    assert traded.profits(*entries) == ["open"] * 2
    out = traded.alert("EXIT", "k", client=ADMIN_CLIENT).order
    assert (out.status, out.attempt) == (Status.ACCEPTED, 2)
    traded.pass_on()
    assert traded.profits(*entries) == [0, 0]
