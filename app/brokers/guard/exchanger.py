"""One conversation through the guard: which call is what to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Protocol, TypeVar

from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.domain.order import Ticket
from app.domain.outcome import NotSent, Outcome
from app.service.exchanger import Exchanger
from app.service.records import BookOrder, Position, Quote, Trade

BeforeSend = Callable[[], NotSent | None]
QUOTES_PER_CALL = 50
"""What Fyers answers in one call: each part is a call of its own to the budget."""
_T = TypeVar("_T")


class Doors(Protocol):
    """The two ways through the guard."""

    def read(
        self, what: str, call: Callable[[], _T], deadline: Deadline, *, reserved: bool, once: bool
    ) -> _T: ...

    def order(
        self,
        call: Callable[[BeforeSend], Outcome],
        before_send: BeforeSend | None,
        deadline: Deadline,
        *,
        passes_by: tuple[str, ...],
    ) -> Outcome: ...

    def room(self, deadline: Deadline) -> NotSent | None: ...


class GuardedExchanger:
    """One conversation. Books and positions are read from what is kept for exits and reconcile; quotes are not."""

    def __init__(self, guard: Doors, inner: Exchanger, deadline: Deadline, *, once: bool) -> None:
        self._guard, self._inner, self._deadline, self._once = guard, inner, deadline, once

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        wanted = list(dict.fromkeys(tickers))
        found: dict[str, Quote] = {}
        for start in range(0, len(wanted), QUOTES_PER_CALL):
            part = wanted[start : start + QUOTES_PER_CALL]
            found |= self._read("quotes", lambda part=part: self._inner.quotes(part), reserved=False)  # type: ignore[misc]
        return found

    def order_book(self) -> tuple[BookOrder, ...]:
        return self._read("book", self._inner.order_book)

    def positions(self) -> tuple[Position, ...]:
        return self._read("positions", self._inner.positions)

    def trades(self) -> tuple[Trade, ...]:
        return self._read("trades", self._inner.trades)

    def market_open(self, exchange: Exchange) -> bool | None:
        return self._read("market status", lambda: self._inner.market_open(exchange), reserved=False)

    def room_for_exit(self) -> NotSent | None:
        return self._guard.room(self._deadline)

    def place(self, ticket: Ticket, before_send: BeforeSend, *, reduces: bool = False) -> Outcome:
        passes_by = ("positions",) if reduces else ()
        return self._guard.order(
            lambda check: self._inner.place(ticket, check, reduces=reduces),
            before_send,
            self._deadline,
            passes_by=passes_by,
        )

    def cancel(self, broker_order_id: str) -> Outcome:
        return self._guard.order(
            lambda _: self._inner.cancel(broker_order_id),
            None,
            self._deadline,
            passes_by=("positions", "book"),
        )

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        return self._guard.order(
            lambda _: self._inner.set_protection(position_id, stop_distance, target_distance, quantity),
            None,
            self._deadline,
            passes_by=("positions",),
        )

    def close_position(self, position_id: str, before_send: BeforeSend) -> Outcome:
        return self._guard.order(
            lambda check: self._inner.close_position(position_id, check),
            before_send,
            self._deadline,
            passes_by=("positions",),
        )

    def _read(self, what: str, call: Callable[[], _T], *, reserved: bool = True) -> _T:
        return self._guard.read(what, call, self._deadline, reserved=reserved, once=self._once)
