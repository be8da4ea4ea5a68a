"""What the paper exchange remembers: its documents, and the book that one piece of work loads and changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Self

from app.brokers.paper.master import TICK
from app.domain.alert import IST
from app.domain.order import OrderKind, Side
from app.service.records import BookOrder, BookStatus, Position, Trade

START_FUNDS = Decimal(5_000_000)
"""Rupees: fifty lakh, so that selling a lot of any listed index option passes the margin."""


class Document:
    """A flat dataclass kept as JSON text; decimals are written as strings."""

    DECIMALS: ClassVar[frozenset[str]] = frozenset()

    def dump(self) -> str:
        return json.dumps(asdict(self), default=str)  # type: ignore[call-overload]  # every subclass is a dataclass

    @classmethod
    def load(cls, text: str) -> Self:
        raw: dict[str, Any] = json.loads(text)
        return cls(**{k: Decimal(v) if k in cls.DECIMALS and v is not None else v for k, v in raw.items()})


@dataclass(slots=True)
class PaperOrder(Document):
    """An order as the exchange holds it. Quantities in contracts, prices in rupees, times ISO texts in UTC."""

    DECIMALS: ClassVar[frozenset[str]] = frozenset(
        {"limit_price", "stop_price", "stop_distance", "target_distance", "value", "margin_unit", "tick"}
    )
    id: str
    seq: int
    ticker: str
    side: Side
    quantity: int
    product: str
    kind: OrderKind
    placed_at: str
    ends: str
    """End of the contract's last session."""
    margin_unit: Decimal
    """Margin of one contract sold short."""
    tick: Decimal = TICK
    tag: str | None = None
    limit_price: Decimal = Decimal(0)
    stop_price: Decimal = Decimal(0)
    stop_distance: Decimal | None = None
    target_distance: Decimal | None = None
    status: int = BookStatus.PENDING
    filled: int = 0
    value: Decimal = Decimal(0)
    """Sum of price x quantity over its fills."""
    filled_at: str = ""
    triggered: bool = False
    parent_id: str | None = None
    source: str = "API"
    message: str = ""

    def __post_init__(self) -> None:
        self.side, self.kind = Side(self.side), OrderKind(self.kind)

    @property
    def remaining(self) -> int:
        return self.quantity - self.filled

    @property
    def is_working(self) -> bool:
        return self.status in (BookStatus.TRANSIT, BookStatus.PENDING)

    @property
    def average(self) -> Decimal | None:
        return self.value / self.filled if self.filled else None

    @property
    def position_id(self) -> str:
        return f"{self.ticker}-{self.product}"

    def row(self) -> BookOrder:
        return BookOrder(
            broker_order_id=self.id,
            ticker=self.ticker,
            side=self.side,
            quantity=self.quantity,
            filled_quantity=self.filled,
            status=self.status,
            product=self.product,
            tag=self.tag,
            placed_at=datetime.fromisoformat(self.placed_at),
            traded_price=self.average,
            parent_id=self.parent_id,
            source=self.source,
            message=self.message,
            has_stop=self.stop_distance is not None,
            has_target=self.target_distance is not None,
            is_stop=self.kind is OrderKind.STOP_LIMIT,
        )


@dataclass(slots=True)
class PaperPosition(Document):
    """Net of one contract and product, with the overlay legs as price levels."""

    DECIMALS: ClassVar[frozenset[str]] = frozenset(
        {"average", "stop", "target", "margin_unit", "tick", "realized"}
    )
    id: str
    ticker: str
    product: str
    ends: str
    margin_unit: Decimal
    day: str
    """YYMMDD (IST) of its latest change: closed positions are shown on that day only."""
    net: int = 0
    average: Decimal = Decimal(0)
    stop: Decimal | None = None
    target: Decimal | None = None
    leg_quantity: int | None = None
    """None: the legs cover whatever is open."""
    tick: Decimal = TICK
    realized: Decimal = Decimal(0)
    """Rupees made (lost: negative) by closing on `day`."""

    @property
    def sign(self) -> int:
        return (self.net > 0) - (self.net < 0)

    def drop_legs(self) -> None:
        self.stop = self.target = self.leg_quantity = None

    def row(self, today: str, mark: Decimal | None) -> Position:
        """As the broker shows it. `mark`: the last price; without one the profit of what is open is not known."""
        average = self.average if self.net else None
        stop, target = self.stop is not None, self.target is not None
        made = self.realized if self.day == today else Decimal(0)
        profit = made if not self.net else None if mark is None else made + self.net * (mark - self.average)
        return Position(self.id, self.ticker, self.product, self.net, average, stop, target, profit)


@dataclass(slots=True)
class PaperTrade(Document):
    """One fill."""

    DECIMALS: ClassVar[frozenset[str]] = frozenset({"price"})
    id: str
    order_id: str
    ticker: str
    side: Side
    quantity: int
    price: Decimal
    at: str
    seq: int = 0
    """Counts the account's fills: several may share one moment."""

    def __post_init__(self) -> None:
        self.side = Side(self.side)

    def row(self, order: PaperOrder) -> Trade:
        at = datetime.fromisoformat(self.at).replace(microsecond=0)
        return Trade(
            self.id, order.id, self.ticker, order.product, self.side, self.quantity, self.price, at, order.tag
        )


@dataclass(slots=True)
class Meta(Document):
    """The account's one row that every change locks."""

    DECIMALS: ClassVar[frozenset[str]] = frozenset({"cash"})
    cash: Decimal = START_FUNDS
    next_seq: int = 1
    next_fill: int = 1
    working: list[str] = field(default_factory=list)
    """Ids of the orders that may still change, so that a change need not load the whole day."""


@dataclass(slots=True)
class Book:
    """The working orders, all kept positions and the money of one account, and what has changed."""

    account: str
    meta: Meta
    orders: dict[str, PaperOrder] = field(default_factory=dict)
    positions: dict[str, PaperPosition] = field(default_factory=dict)
    trades: list[PaperTrade] = field(default_factory=list)
    changed_orders: set[str] = field(default_factory=set)
    changed_positions: set[str] = field(default_factory=set)

    @property
    def has_changed(self) -> bool:
        return bool(self.changed_orders or self.changed_positions or self.trades)

    def working(self) -> list[PaperOrder]:
        return sorted((o for o in self.orders.values() if o.is_working), key=lambda o: o.seq)

    def watched(self, at: datetime) -> set[str]:
        """Tickers whose price may change something; a contract that has ended has none any more."""
        legged = {p.ticker for p in self.held(at) if p.stop or p.target}
        return legged | {o.ticker for o in self.orders.values() if o.is_working and o.ends > stamp(at)}

    def held(self, at: datetime) -> list[PaperPosition]:
        """What is open and still trading."""
        return [p for p in self.positions.values() if p.net and p.ends > stamp(at)]

    def next_seq(self) -> int:
        seq = self.meta.next_seq
        self.meta.next_seq += 1
        return seq

    def add_trade(self, order: PaperOrder, quantity: int, price: Decimal, at: datetime) -> None:
        seq = self.meta.next_fill
        self.meta.next_fill += 1
        key = f"{order.id}-{order.filled}"
        self.trades.append(
            PaperTrade(key, order.id, order.ticker, order.side, quantity, price, stamp(at), seq)
        )

    def add(self, order: PaperOrder) -> PaperOrder:
        self.orders[order.id] = order
        self.changed_orders.add(order.id)
        return order

    def end(self, order: PaperOrder, status: int, message: str = "") -> None:
        order.status = status
        order.message = message or order.message
        self.changed_orders.add(order.id)


def day_of(at: datetime) -> str:
    """YYMMDD of the IST date: the head of the day's order ids."""
    return at.astimezone(IST).strftime("%y%m%d")


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
