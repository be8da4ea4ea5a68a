"""A whole service on fakes, and what one alert to it looks like."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Order
from app.domain.status import Status
from app.errors import NoMaster
from app.service.desk import Desk
from app.service.place_order import Answer, PlaceOrder, Policy
from app.service.reconcile import Reconcile
from tests.builders import SCOPE, a_contract, a_policy, an_alert
from tests.fakes import FakeBroker, FakeClock, FakeContracts, FakeNotifier, FakeStore


@dataclass
class TradingDesk:
    policy: Policy = field(default_factory=a_policy)
    clock: FakeClock = field(default_factory=FakeClock)
    notifier: FakeNotifier = field(default_factory=FakeNotifier)

    def __post_init__(self) -> None:
        self.contract = a_contract()
        self.store = FakeStore(self.clock, SCOPE)
        self.broker = FakeBroker(self.clock)
        self.contracts = FakeContracts([self.contract])
        self._numbers = itertools.count(1)
        self.desk = Desk(
            self.store,
            self.broker,
            self.contracts,
            self.clock,
            SCOPE,
            self.policy,
            self.notifier,
            random_bytes=lambda size: next(self._numbers).to_bytes(size, "little"),
        )
        self.service = PlaceOrder(self.desk)
        self.reconcile = Reconcile(self.desk)

    def alert(self, action: str = "BUY", key: str | None = None, **changes: Any) -> Answer:
        """One delivery. Without a key each is an alert of its own."""
        body = key or f"body {next(self._numbers)}"
        alert = an_alert(action, key, changes.pop("body", body), received_at=self.clock.now(), **changes)
        started = self.clock.monotonic()
        return self.service(alert, request_id="r", started=started)

    def held(self, answer: str = "BUY", **changes: Any) -> Order:
        """An accepted and filled entry."""
        order = self.alert(answer, **changes).order
        assert order.status is Status.ACCEPTED, order
        return order

    def row(self, order: Order) -> Order:
        return self.store.data.orders[order.id]

    def events(self, order: Order) -> list[Event]:
        return [e.event for e in self.store.events(SCOPE, order.id)]

    def sent(self) -> list[tuple[str, str, int]]:
        return [(t.ticker, t.side.value, t.quantity) for t in self.broker.ledger]

    def net(self, product: Product = Product.INTRADAY) -> int:
        return self.broker.net.get((self.contract.ticker, product.value), 0)

    def owned(self) -> dict[str, int]:
        """Signed contracts by client, as our rows have them."""
        with self.store.read() as tx:
            return {h.client: h.net_quantity for h in tx.holdings(SCOPE, None)}

    def positions_hidden(self) -> dict[tuple[str, str], int]:
        """The broker's list comes empty from here on; what it would show."""
        shown = dict(self.broker.net)
        self.broker.net.clear()
        return shown

    def one_pass(self) -> None:
        """One that has no contract index does what it can, and says so."""
        with pytest.raises(NoMaster) if self.contracts.missing else nullcontext():
            self.reconcile()

    def proven_absent(self, order: Order) -> None:
        """Passes over a book that other orders of the account show to be fresh, until ours is NOT_PLACED."""
        for _ in range(60):
            self.clock.advance(10)
            self.broker.by_hand("NSE:SOMETHING", 1)
            self.one_pass()
            if self.row(order).status is Status.NOT_PLACED:
                return
        raise AssertionError(f"still {self.row(order).status}")
