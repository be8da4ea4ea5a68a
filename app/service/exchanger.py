"""One conversation with a broker: what may be asked of it and what it may be told, as a Protocol.

Units: quantities in contracts, prices in rupees (`Decimal`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Protocol

from app.domain.alert import Exchange
from app.domain.order import Ticket
from app.domain.outcome import NotSent, Outcome
from app.service.records import BookOrder, Position, Quote, Trade


class Exchanger(Protocol):
    """One request's conversation with the broker, on connections of its own.

    Reads raise BrokerReadFailed: a failed read never means "flat" or "empty". Whatever changes something is one
    attempt, never repeated, and answers with an Outcome: NotSent only when the byte count proves it.

    `before_send` is called after the connection stands (TCP and TLS) and right before the first byte is written, and
    again where that connection was lost meanwhile and another one made; a NotSent from it stops the call with exactly
    that outcome.
    """

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        """One Quote per asked ticker that the answer had a good row for; others are absent."""

    def order_book(self) -> tuple[BookOrder, ...]:
        """The whole unfiltered book of today."""

    def positions(self) -> tuple[Position, ...]:
        """All net positions, closed ones (net 0) too."""

    def trades(self) -> tuple[Trade, ...]:
        """The whole trade book of today, all platforms', in the order of the fills."""

    def market_open(self, exchange: Exchange) -> bool | None:
        """Whether the exchange's derivatives trade now, by the broker's own word; None when it does not say."""

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        """`reduces`: an exit. It may go out when the broker has failed, if its own position read has just succeeded."""

    def room_for_exit(self) -> NotSent | None:
        """Why the legs of a position must stay on for now: the exit after them could not go. None: it could."""

    def cancel(self, broker_order_id: str) -> Outcome: ...

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        """Set the overlay legs of a position; zero distances remove them (fyers-api.md 2.3)."""

    def close_position(self, position_id: str, before_send: Callable[[], NotSent | None]) -> Outcome:
        """Close one whole net position by its id. Accepted carries the id of the closing order when known."""
