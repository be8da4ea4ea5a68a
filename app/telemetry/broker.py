"""Any broker, with its calls counted, timed and told to the trail of whoever makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Protocol, TypeVar

from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.domain.order import Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused
from app.errors import BrokerReadFailed
from app.service import observe
from app.service.exchanger import Exchanger
from app.service.ports import Broker
from app.service.records import BookOrder, Position, Quote, Trade

T = TypeVar("T")


class Seen(Protocol):
    """Counts a call."""

    def __call__(self, broker: str, call: str, outcome: str, took: float) -> None: ...


class ObservedBroker:
    """Implements service.ports.Broker around `inner`, and changes nothing of what it says."""

    def __init__(self, inner: Broker, seen: Seen) -> None:
        self.name = inner.name
        self.inner, self._seen = inner, seen

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Exchanger]:
        with self.inner.exchange(deadline, connect_by, once=once) as exchanger:
            yield ObservedExchanger(exchanger, self.name, self._seen)

    def ready(self) -> str | None:
        return self.inner.ready()


class ObservedExchanger:
    def __init__(self, inner: Exchanger, name: str, seen: Seen) -> None:
        self._inner, self._name, self._seen = inner, name, seen

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        return self._read("quote", "quotes", lambda: self._inner.quotes(tickers))

    def order_book(self) -> tuple[BookOrder, ...]:
        return self._read("book", "order_book", self._inner.order_book)

    def positions(self) -> tuple[Position, ...]:
        return self._read("book", "positions", self._inner.positions)

    def trades(self) -> tuple[Trade, ...]:
        return self._read("book", "trades", self._inner.trades)

    def market_open(self, exchange: Exchange) -> bool | None:
        return self._read("book", "market_open", lambda: self._inner.market_open(exchange))

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        return self._change("place", lambda: self._inner.place(ticket, before_send, reduces=reduces))

    def cancel(self, broker_order_id: str) -> Outcome:
        return self._change("cancel", lambda: self._inner.cancel(broker_order_id))

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        return self._change(
            "set_protection",
            lambda: self._inner.set_protection(position_id, stop_distance, target_distance, quantity),
        )

    def room_for_exit(self) -> NotSent | None:
        return self._inner.room_for_exit()

    def close_position(self, position_id: str, before_send: Callable[[], NotSent | None]) -> Outcome:
        return self._change("close_position", lambda: self._inner.close_position(position_id, before_send))

    def _read(self, phase: str, call: str, read: Callable[[], T]) -> T:
        started, outcome = time.perf_counter(), "error"
        try:
            with observe.phase(phase, call=call, broker=self._name):
                found = read()
            outcome = "ok"
        except BrokerReadFailed:
            outcome = "failed"
            raise
        finally:
            self._seen(self._name, call, outcome, time.perf_counter() - started)
        return found

    def _change(self, call: str, change: Callable[[], Outcome]) -> Outcome:
        started, word = time.perf_counter(), "error"
        trail = observe.current()
        if trail is not None:
            trail.calling = True
        try:
            with observe.phase("broker", call=call, broker=self._name):
                outcome = change()
            word = _word(outcome)
        finally:
            if trail is not None:
                trail.calling, trail.sent = False, True
            self._seen(self._name, call, word, time.perf_counter() - started)
        return outcome


def _word(outcome: Outcome) -> str:
    match outcome:
        case Accepted():
            return "accepted"
        case Refused():
            return "refused"
        case NotSent():
            return "not_sent"
    return "unknown"
