"""Rows to put into a store, and a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from app.domain.alert import Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.audit import Event
from app.domain.order import Mode, Order, Protection, Purpose, Scope, Side
from app.domain.status import Status
from app.service.records import AuditEvent
from app.store.sql import SqlStore

NOON = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
SCOPE = Scope(Mode.PAPER, "PAPER")
LIVE = Scope(Mode.LIVE, "XY1")
TICKER = "NSE:NIFTY26NOV24500CE"


class Clock:
    """Stands still until told; `monotonic` goes with it, so that deadlines do too."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOON).total_seconds()

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Asked:
    """Hears statements."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.errors: list[str] = []

    def asked(self, statement: str) -> None:
        self.statements.append(statement)

    def failed(self, statement: str | None, error: BaseException) -> None:
        self.errors.append(f"{(statement or '')[:6]} {type(error).__name__}")


def key(digest: str = "d1", body: str = "b1") -> AlertKey:
    return AlertKey(KeyKind.EXPLICIT, digest, body)


def order(ident: str = "A", **changed: object) -> Order:
    made = Order(
        id=ident,
        scope=SCOPE,
        client="trader",
        strategy="orb",
        key=key(),
        purpose=Purpose.ENTRY,
        action=Action.BUY,
        exchange=Exchange.NSE,
        underlying="NIFTY",
        expiry=date(2026, 11, 24),
        session_end=datetime(2026, 11, 24, 10, 0, tzinfo=UTC),
        strike=Decimal("24500.00"),
        option_type=OptionType.CE,
        ticker=TICKER,
        lot=75,
        side=Side.BUY,
        quantity=75,
        product=Product.INTRADAY,
        status=Status.SENDING,
        ist_date=date(2026, 11, 23),
        tag=f"TAGS{ident}",
        ltp=Decimal("142.3500"),
        stop_distance=Decimal("21.35"),
        stop_loss=Decimal("121.00"),
        protection=Protection.REQUESTED,
        warnings=("unknown field x", "“curly”"),
        fence="f1",
        send_by=NOON + timedelta(seconds=1, microseconds=5),
        created_at=NOON,
        updated_at=NOON,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def said(kind: Event = Event.ORDER_SENDING, status: Status | None = Status.SENDING) -> AuditEvent:
    return AuditEvent(kind, NOON, status, {"why": "test"})


def insert(store: SqlStore, *orders: Order) -> None:
    with store.write() as tx:
        for one in orders:
            tx.insert_order(one, said(status=one.status))
