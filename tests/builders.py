"""Small builders: valid domain objects, with the one thing that a test is about given by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.domain.alert import Action, Alert, Exchange, ExpiryRule, OptionType, Product, canonical_hash, key_of
from app.domain.contract import Contract
from app.domain.order import Mode, Order, Purpose, Scope, Side, tag_of
from app.domain.risk import Limits
from app.domain.status import Status
from app.service.desk import Policy

NOW = datetime(2026, 11, 18, 5, 0, tzinfo=UTC)
"""Wednesday, 10:30 IST."""
TODAY = date(2026, 11, 18)
SCOPE = Scope(Mode.PAPER, "paper")
LOT = 65


def a_contract(expiry: date = date(2026, 11, 24), strike: int = 24500, **changes: Any) -> Contract:
    values: dict[str, Any] = {
        "exchange": Exchange.NSE,
        "underlying": "NIFTY",
        "expiry": expiry,
        "session_end": datetime(expiry.year, expiry.month, expiry.day, 10, 0, tzinfo=UTC),
        "strike": Decimal(strike),
        "option_type": OptionType.CE,
        "ticker": f"NSE:NIFTY{expiry:%y%m%d}{strike}CE",
        "lot": LOT,
        "tick": Decimal("0.05"),
        "freeze": 1800,
        "underlying_ticker": "NSE:NIFTY50-INDEX",
        "is_stock": False,
        "master_date": TODAY,
    }
    return Contract(**(values | changes))


def an_alert(action: str = "BUY", key: str | None = None, body: str = "", **changes: Any) -> Alert:
    client = changes.get("client", "default")
    received = changes.get("received_at", NOW)
    shape = {"action": action, "body": body} | {k: str(v) for k, v in changes.items()}
    values: dict[str, Any] = {
        "client": client,
        "symbol": "NIFTY",
        "strike": Decimal(24500),
        "option_type": OptionType.CE,
        "expiry": ExpiryRule.WEEKLY,
        "action": Action(action),
        "product": Product.INTRADAY,
        "key": key_of(client, key, canonical_hash(dict(shape)), received),
        "received_at": received,
    }
    if action != "EXIT" and "qty" not in changes and "lots" not in changes:
        values["lots"] = 1
    return Alert(**(values | changes))


def an_order(number: int = 1, contract: Contract | None = None, **changes: Any) -> Order:
    contract = contract or a_contract()
    ident = f"{number:A>26}"
    key = key_of("default", f"order {number}", f"body {number}", NOW)
    values: dict[str, Any] = {
        "id": ident,
        "scope": SCOPE,
        "client": "default",
        "strategy": "",
        "key": key,
        "purpose": Purpose.ENTRY,
        "action": Action.BUY,
        "exchange": contract.exchange,
        "underlying": contract.underlying,
        "expiry": contract.expiry,
        "session_end": contract.session_end,
        "strike": contract.strike,
        "option_type": contract.option_type,
        "ticker": contract.ticker,
        "lot": contract.lot,
        "side": Side.BUY,
        "quantity": LOT,
        "product": Product.INTRADAY,
        "status": Status.SENDING,
        "ist_date": TODAY,
        "tag": tag_of("TEST", ident[::-1]),
    }
    return Order(**(values | changes))


def a_policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "sl_percent": Decimal(15),
        "tp_percent": Decimal(25),
        "max_ltp_gap_percent": Decimal(5),
        "limits": Limits(max_lots=1),
        "dedupe_window": timedelta(seconds=40),
        "request_deadline_s": 2.0,
        "tag_prefix": "TEST",
    }
    return Policy(**(values | changes))
