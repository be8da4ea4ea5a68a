"""Orders, fills and positions, and their rows as the broker shows them (rows D; averages of a short position A)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tests.simulator.clock import ist_text
from tests.simulator.masters import Instrument
from tests.simulator.money import ZERO, num
from tests.simulator.wire import JsonObject

CANCELLED, TRADED, TRANSIT, REJECTED, PENDING, EXPIRED = 1, 2, 4, 5, 6, 7
UNTAGGED = "2:Untagged"


@dataclass(frozen=True)
class OrderIntent:
    """A validated order. Distances are rupees from entry, never levels."""

    instrument: Instrument
    qty: int
    kind: int
    side: int
    product: str
    limit_price: Decimal = ZERO
    stop_price: Decimal = ZERO
    disclosed_qty: int = 0
    validity: str = "DAY"
    offline: bool = False
    stop_loss: Decimal = ZERO
    take_profit: Decimal = ZERO
    leg_type: int = 1
    tag: str = ""
    slice: bool = False


@dataclass
class Order:
    """A row of the order book."""

    id: str
    intent: OrderIntent
    at: datetime
    serial: int
    qty: int
    kind: int
    limit_price: Decimal
    stop_price: Decimal
    source: str = "API"
    tag: str = UNTAGGED
    status: int = TRANSIT
    filled: int = 0
    value: Decimal = ZERO
    message: str = ""
    parent_id: str | None = None
    visible_at: datetime | None = None
    _shown: tuple[tuple[object, ...], JsonObject] | None = None

    @property
    def remaining(self) -> int:
        """What may still trade."""
        return self.qty - self.filled if self.status in (TRANSIT, PENDING) else 0

    @property
    def position_id(self) -> str:
        """The position that its fills move."""
        return f"{self.intent.instrument.ticker}-{self.intent.product}"

    def row(self, client_id: str, last: Decimal) -> JsonObject:
        """As in GET /orders; the same object while nothing changed, so treat it as read-only."""
        changing = (
            self.status,
            self.filled,
            self.value,
            self.qty,
            self.kind,
            self.limit_price,
            self.stop_price,
        )
        key = (*changing, self.message, client_id, last)
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._row(client_id, last))
        return self._shown[1]

    def _row(self, client_id: str, last: Decimal) -> JsonObject:
        instrument = self.intent.instrument
        on_exchange = self.status not in (TRANSIT, REJECTED)
        row: JsonObject = {
            "clientId": client_id,
            "id": self.id,
            "id_fyers": str(uuid.uuid5(uuid.NAMESPACE_OID, self.id)),
            "exchOrdId": f"11{self.serial:014d}" if on_exchange else None,
            "qty": self.qty,
            "remainingQuantity": self.remaining,
            "filledQty": self.filled,
            "discloseQty": self.intent.disclosed_qty,
            "limitPrice": num(self.limit_price),
            "stopPrice": num(self.stop_price),
            "tradedPrice": num(self.value / self.filled) if self.filled else 0,
            "type": self.kind,
            "fyToken": instrument.fy_token,
            "exchange": instrument.exchange,
            "segment": instrument.segment,
            "symbol": instrument.ticker,
            "instrument": instrument.kind,
            "message": self.message,
            "offlineOrder": self.intent.offline,
            "orderDateTime": ist_text(self.at),
            "orderValidity": self.intent.validity,
            "pan": "",
            "productType": self.intent.product,
            "side": self.intent.side,
            "status": self.status,
            "source": self.source,
            "ex_sym": instrument.underlying,
            "description": instrument.details,
            "ch": 0,
            "chp": 0,
            "lp": num(last),
            "slNo": self.serial,
            "dqQtyRem": 0,
            "orderNumStatus": f"{self.id}:{self.status}",
            "disclosedQty": self.intent.disclosed_qty,
            "orderTag": self.tag,
            "takeProfit": num(self.intent.take_profit),
            "stopLoss": num(self.intent.stop_loss),
        }
        if self.parent_id is not None:
            row["parentId"] = self.parent_id
        return row


@dataclass(frozen=True)
class Trade:
    """One fill."""

    order: Order
    qty: int
    price: Decimal
    at: datetime
    number: int

    def row(self, client_id: str) -> JsonObject:
        """As in GET /tradebook."""
        intent = self.order.intent
        return {
            "clientId": client_id,
            "orderDateTime": ist_text(self.at),
            "orderNumber": self.order.id,
            "exchangeOrderNo": f"11{self.order.serial:014d}",
            "exchange": intent.instrument.exchange,
            "side": intent.side,
            "segment": intent.instrument.segment,
            "orderType": self.order.kind,
            "fyToken": intent.instrument.fy_token,
            "productType": intent.product,
            "tradedQty": self.qty,
            "tradePrice": num(self.price),
            "tradeValue": num(self.price * self.qty),
            "tradeNumber": f"{self.order.id}-{self.number}",
            "row": self.number,
            "symbol": intent.instrument.ticker,
            "orderTag": self.order.tag,
        }


@dataclass
class Position:
    """Net of one ticker and product. `stop_loss` and `take_profit` are the overlay's distances, 0 without one."""

    instrument: Instrument
    product: str
    serial: int
    day_buy: int = 0
    day_sell: int = 0
    cf_buy: int = 0
    cf_sell: int = 0
    buy_value: Decimal = ZERO
    sell_value: Decimal = ZERO
    stop_loss: Decimal = ZERO
    take_profit: Decimal = ZERO
    leg_type: int = field(default=1)

    @property
    def id(self) -> str:
        """`<symbol>-<product>` (D)."""
        return f"{self.instrument.ticker}-{self.product}"

    @property
    def net(self) -> int:
        """Bought less sold; negative when short."""
        return self.day_buy + self.cf_buy - self.day_sell - self.cf_sell

    @property
    def buy_average(self) -> Decimal:
        """Average price of all that was bought."""
        bought = self.day_buy + self.cf_buy
        return self.buy_value / bought if bought else ZERO

    @property
    def sell_average(self) -> Decimal:
        """Average price of all that was sold."""
        sold = self.day_sell + self.cf_sell
        return self.sell_value / sold if sold else ZERO

    @property
    def net_average(self) -> Decimal:
        """The entry price of what is open; 0 when flat."""
        return ZERO if self.net == 0 else self.buy_average if self.net > 0 else self.sell_average

    @property
    def realized(self) -> Decimal:
        """Profit of what was closed."""
        closed = min(self.day_buy + self.cf_buy, self.day_sell + self.cf_sell)
        return (self.sell_average - self.buy_average) * closed

    def unrealized(self, last: Decimal) -> Decimal:
        """Profit of what is open."""
        return (last - self.net_average) * self.net

    def apply(self, side: int, qty: int, price: Decimal) -> None:
        """Move by one fill; a position that is flat has no overlay."""
        if side == 1:
            self.day_buy += qty
            self.buy_value += price * qty
        else:
            self.day_sell += qty
            self.sell_value += price * qty
        if self.net == 0:
            self.stop_loss = self.take_profit = ZERO

    def row(self, last: Decimal) -> JsonObject:
        """As in GET /positions; `stopLoss` and `takeProfit` are assumed fields (A): no public row shows an overlay."""
        realized, unrealized = self.realized, self.unrealized(last)
        sign = (self.net > 0) - (self.net < 0)
        return {
            "netQty": self.net,
            "qty": abs(self.net),
            "avgPrice": num(self.net_average),
            "netAvg": num(self.net_average),
            "side": sign,
            "productType": self.product,
            "realized_profit": num(realized),
            "unrealized_profit": num(unrealized),
            "pl": num(realized + unrealized),
            "ltp": num(last),
            "buyQty": self.day_buy + self.cf_buy,
            "buyAvg": num(self.buy_average),
            "buyVal": num(self.buy_value),
            "sellQty": self.day_sell + self.cf_sell,
            "sellAvg": num(self.sell_average),
            "sellVal": num(self.sell_value),
            "slNo": self.serial,
            "fyToken": self.instrument.fy_token,
            "crossCurrency": "",
            "rbiRefRate": 1,
            "qtyMulti_com": 1,
            "segment": self.instrument.segment,
            "symbol": self.instrument.ticker,
            "id": self.id,
            "cfBuyQty": self.cf_buy,
            "cfSellQty": self.cf_sell,
            "dayBuyQty": self.day_buy,
            "daySellQty": self.day_sell,
            "exchange": self.instrument.exchange,
            "stopLoss": num(self.stop_loss),
            "takeProfit": num(self.take_profit),
        }
