"""What an API client may do to orders and positions once they exist: modify, cancel, exit, protect.

(D) codes 1101/1103, -51, -53, -352, 200 and 201 of an exit, -161/-162/-164 with legacy texts, 0 or null
removing a leg. (M) a partial modify is refused. (A) HTTP 400 for refusals; the answer of PATCH /positions; an
exit places a market order of source API without a tag, and cancels the legs of BO and CO; `{}` exits
everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.simulator import legs
from tests.simulator.book import CANCELLED, PENDING, REJECTED, TRADED, Order, OrderIntent, Position
from tests.simulator.exchange import Exchange
from tests.simulator.money import dec
from tests.simulator.validation import bad, check_lot, check_prices, check_tick, is_kind
from tests.simulator.wire import JsonObject, Refusal, Reply, ok


@dataclass
class Desk:
    """Each method answers one endpoint; the exchange's lock is held by the caller."""

    exchange: Exchange

    def _working(self, order_id: Any) -> Order:
        self.exchange.advance()
        order = self.exchange.orders.get(order_id) if isinstance(order_id, str) else None
        if order is None or order.visible_at is not None:
            raise Refusal(-51, "invalid order id")
        if order.status == TRADED:
            raise Refusal(-162, "Order already traded")
        if order.status == CANCELLED:
            raise Refusal(-161, "Order already cancelled")
        if order.status == REJECTED:
            raise Refusal(-164, "Order already rejected")
        return order

    def cancel(self, order_id: Any) -> Reply:
        """DELETE /orders/sync and DELETE /orders/{id}/sync."""
        order = self._working(order_id)
        if order.parent_id is not None:
            legs.exit_leg(self.exchange, order)
        else:
            order.status = CANCELLED
            self.exchange.tell(order)
        return ok(1103, "Successfully cancelled order", id=order.id)

    def modify(self, body: JsonObject) -> Reply:
        """PATCH /orders/sync: id, type, limitPrice, stopPrice and qty, all of them."""
        order = self._working(body.get("id"))
        needed = {"type": "integer", "limitPrice": "number", "stopPrice": "number", "qty": "integer"}
        if (
            not all(is_kind(body.get(name), kind) for name, kind in needed.items())
            or not 1 <= body["type"] <= 4
        ):
            raise bad("limitPrice does not match: 0")
        instrument, side = order.intent.instrument, order.intent.side
        limit, stop = dec(body["limitPrice"]), dec(body["stopPrice"])
        check_lot(instrument, body["qty"])
        check_prices(instrument, body["type"], side, limit, stop)
        if body["qty"] <= order.filled:
            raise bad("qty: Must be greater than the filled quantity")
        order.kind, order.limit_price, order.stop_price, order.qty = body["type"], limit, stop, body["qty"]
        if order.parent_id is not None and order.kind == 2:
            legs.exit_leg(self.exchange, order)
        elif order.status == PENDING:
            self.exchange.work_again(order)
        return ok(1101, "Successfully modified order", id=order.id)

    def protect(self, body: JsonObject) -> Reply:
        """PATCH /positions: set, change or remove the overlay; what is left out stays."""
        self.exchange.advance()
        position = self.exchange.positions.get(str(body.get("positionId", body.get("id"))))
        if position is None or position.net == 0:
            raise Refusal(-53, "invalid position id")
        for name in ("stopLoss", "takeProfit"):
            if body.get(name) is not None and not is_kind(body[name], "number"):
                raise bad(f"{name}: expected number")
        stop = dec(body["stopLoss"] or 0) if "stopLoss" in body else position.stop_loss
        target = dec(body["takeProfit"] or 0) if "takeProfit" in body else position.take_profit
        if body.get("legType", position.leg_type) == 1:
            check_tick("StopLoss", stop, position.instrument)
            check_tick("TakeProfit", target, position.instrument)
        if self.exchange.overlay_mode == "shown":
            position.stop_loss, position.take_profit = stop, target
            position.leg_type = body.get("legType", position.leg_type)
        return ok(200, "Position legs updated successfully")

    def exit(self, body: JsonObject) -> tuple[Reply, list[str]]:
        """DELETE /positions; also the ids of the orders it made."""
        self.exchange.advance()
        if not _is_readable(body):
            raise bad("Invalid input")
        if body.get("pending_orders_cancel"):
            return self._cancel_pending(body), []
        chosen = [p for p in self.exchange.positions.values() if p.net and _is_meant(p, body)]
        if not chosen:
            raise Refusal(-352, "There are no open positions to exit")
        made = [self._close(position) for position in chosen]
        if all(order.status == TRADED for order in made):
            return ok(200, "The position is closed."), [order.id for order in made]
        return ok(201, "Exit order placed, please check the order book", answer="unfilled"), [
            o.id for o in made
        ]

    def _close(self, position: Position) -> Order:
        for leg in legs.working_legs(self.exchange, position.id):
            leg.status = CANCELLED
        side = -1 if position.net > 0 else 1
        intent = OrderIntent(position.instrument, abs(position.net), 2, side, position.product)
        if position.product in ("BO", "CO"):
            order = self.exchange.add(intent, self.exchange.next_id())
            order.kind = 2
            self.exchange.work(order, self.exchange.fill_mode)
            return order
        return self.exchange.place(intent)

    def _cancel_pending(self, body: JsonObject) -> Reply:
        wanted = body.get("id")
        names = [wanted] if isinstance(wanted, str) else wanted
        for order in self.exchange.orders.values():
            if order.remaining and order.visible_at is None and (names is None or order.position_id in names):
                order.status = CANCELLED
        return ok(200, "Pending orders cancelled")


def _is_readable(body: JsonObject) -> bool:
    lists = [body[name] for name in ("segment", "side", "productType") if name in body]
    ids = body.get("id", "")
    return isinstance(ids, str | list) and all(isinstance(value, list) for value in lists)


def _is_meant(position: Position, body: JsonObject) -> bool:
    if not body or body.get("exit_all"):
        return True
    if "id" in body:
        return position.id in ([body["id"]] if isinstance(body["id"], str) else body["id"])
    products = body.get("productType", ["ALL"])
    side = 1 if position.net > 0 else -1
    return (
        position.instrument.segment in body.get("segment", [position.instrument.segment])
        and side in body.get("side", [side])
        and ("ALL" in products or position.product in products)
    )
