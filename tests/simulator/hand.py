"""What a test does to the simulated market, in place of the trader, the exchange and the broker's own desk."""

from __future__ import annotations

from collections.abc import Collection

from tests.simulator import legs
from tests.simulator.book import EXPIRED, OrderIntent
from tests.simulator.desk import Desk
from tests.simulator.exchange import Exchange
from tests.simulator.money import dec
from tests.simulator.quotes import Price, Quotes
from tests.simulator.wire import JsonObject


class MarketHand:
    """Every method takes the exchange's lock."""

    exchange: Exchange
    quotes: Quotes

    def set_quote(
        self,
        ticker: str,
        lp: Price | None = None,
        bid: Price | None = None,
        ask: Price | None = None,
        omit: Collection[str] = (),
    ) -> None:
        """A quote of one ticker; with `lp` alone the touch is five paise around it; `omit` leaves wire fields out."""
        with self.exchange.lock:
            self.quotes.set(ticker, lp, bid, ask, omit)

    def remove_quote(self, ticker: str) -> None:
        """The ticker's row says error from now on."""
        with self.exchange.lock:
            self.quotes.remove(ticker)

    def fill(self, order_id: str, qty: int | None = None, price: Price | None = None) -> None:
        """Trade a working order: all that remains, at the touch, unless said otherwise. ValueError if it does not work."""
        with self.exchange.lock:
            self.exchange.fill(order_id, qty, None if price is None else dec(price))

    def reject(self, order_id: str, message: str) -> None:
        """Status 5 with this message."""
        with self.exchange.lock:
            self.exchange.reject(order_id, message)

    def match(self, ticker: str | None = None) -> None:
        """Let resting orders trade at the quotes of now."""
        with self.exchange.lock:
            self.exchange.match(ticker)

    def cancel(self, order_id: str) -> None:
        """Cancel an order as a person would, in the broker's own app."""
        with self.exchange.lock:
            Desk(self.exchange).cancel(order_id)

    def expire(self, order_id: str) -> None:
        """Status 7: what is left of the order can no longer trade."""
        with self.exchange.lock:
            self.exchange.orders[order_id].status = EXPIRED
            self.exchange.tell(self.exchange.orders[order_id])

    def place_by_hand(
        self, ticker: str, side: int, qty: int, product: str = "INTRADAY", price: Price | None = None
    ) -> str:
        """A trade made elsewhere: source W, tag 2:Untagged, filled at once. The order id. KeyError: unknown ticker."""
        with self.exchange.lock:
            intent = OrderIntent(self.exchange.instrument(ticker), qty, 2, side, product)
            return self.exchange.trade_now(intent, None if price is None else dec(price), "W").id

    def close_by_hand(self, position_id: str, qty: int | None = None, price: Price | None = None) -> str:
        """Close a position (or a part) elsewhere; the order id."""
        with self.exchange.lock:
            position = self.exchange.positions[position_id]
            side = -1 if position.net > 0 else 1
            ticker = position.instrument.ticker
            return self.place_by_hand(ticker, side, qty or abs(position.net), position.product, price)

    def carry_forward(self, ticker: str, qty: int, price: Price, product: str = "MARGIN") -> str:
        """A position of an earlier day, negative when short; its id."""
        with self.exchange.lock:
            return self.exchange.carry_forward(ticker, qty, dec(price), product).id

    def trigger_stop(self, position_id: str, price: Price | None = None) -> str:
        """The stop leg fills, at its level or `price`; the id of the order that did it. ValueError: no stop there."""
        with self.exchange.lock:
            return legs.trigger(
                self.exchange, position_id, None if price is None else dec(price), stop=True
            ).id

    def trigger_target(self, position_id: str, price: Price | None = None) -> str:
        """The target leg fills."""
        with self.exchange.lock:
            return legs.trigger(
                self.exchange, position_id, None if price is None else dec(price), stop=False
            ).id

    def orders(self) -> list[JsonObject]:
        """The rows of GET /orders."""
        with self.exchange.lock:
            return self.exchange.order_rows()

    def positions(self) -> list[JsonObject]:
        """The rows of GET /positions."""
        with self.exchange.lock:
            return self.exchange.position_rows()

    def trades(self) -> list[JsonObject]:
        """The rows of GET /tradebook."""
        with self.exchange.lock:
            return self.exchange.trade_rows()

    def freeze_book(self) -> None:
        """GET /orders and /tradebook show this moment until `unfreeze_book`; positions go on."""
        with self.exchange.lock:
            self.exchange.frozen = (self.exchange.order_rows(), self.exchange.trade_rows())

    def unfreeze_book(self) -> None:
        """Show the truth again."""
        with self.exchange.lock:
            self.exchange.frozen = None
