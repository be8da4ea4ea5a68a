"""A broker in memory for many threads, which notes whether a position was ever turned round."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic

from app.domain.order import Side, Ticket
from app.domain.outcome import NotSent, Outcome, Unknown
from app.service.records import BookOrder, BookStatus, Position, Trade
from tests.builders import LOT, NOW, a_contract
from tests.fakes import FakeBroker

CONTRACT = a_contract()


class Walking:
    """The wall clock goes on when it is told to; deadlines run."""

    def __init__(self) -> None:
        self.walked = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.walked)

    def monotonic(self) -> float:
        return monotonic()


class Market(FakeBroker):
    """For many threads. `turned` is what was traded past zero; `side` is the position's."""

    def __init__(self, clock: Walking, side: Side) -> None:
        super().__init__(clock)  # type: ignore[arg-type]
        self.lock, self.side, self.turned = threading.RLock(), side, 0
        self.half = False
        self.legs_go = False

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        if (stopped := before_send()) is not None:
            return stopped
        with self.lock:
            return super().place(ticket, lambda: None, reduces=reduces)

    def cancel(self, broker_order_id: str) -> Outcome:
        with self.lock:
            return super().cancel(broker_order_id)

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        with self.lock:
            outcome = super().set_protection(position_id, stop_distance, target_distance, quantity)
            if isinstance(outcome, Unknown) and self.legs_go:
                self.protected.pop(position_id, None)
            return outcome

    def order_book(self) -> tuple[BookOrder, ...]:
        with self.lock:
            return super().order_book()

    def trades(self) -> tuple[Trade, ...]:
        with self.lock:
            return super().trades()

    def positions(self) -> tuple[Position, ...]:
        with self.lock:
            return super().positions()

    def fill_part(self, ident: str, quantity: int, price: Decimal = Decimal(101)) -> None:
        super().fill_part(ident, quantity, price)
        self.turned = min(self.turned, self.net.get((CONTRACT.ticker, "INTRADAY"), 0) * self.side.sign)

    def fill_half(self, ident: str) -> None:
        """One half of a working order trades, and the rest goes on working."""
        with self.lock:
            whole = next(row.quantity for row in self.book if row.broker_order_id == ident)
            self.fill_part(ident, whole // LOT // 2 * LOT)

    def stop_fills(self, position_id: str) -> None:
        with self.lock:
            if position_id in self.protected:
                self.trigger_stop(position_id)

    def work_on(self) -> list[str]:
        with self.lock:
            return [row.broker_order_id for row in self.book if row.status == BookStatus.PENDING]
