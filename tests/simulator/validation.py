"""What POST /orders/sync refuses before an order exists: everything is -50 with a message.

(D) the symbol text, the tick text for stopLoss, the enums, tags refused on BO and CO, BO needing both
distances and CO a stop; (M) the two limitPrice texts and a tag of at most 20 alphanumerics; (A) all other
texts, the order of the checks, and that unknown fields are ignored.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.simulator.book import OrderIntent
from tests.simulator.masters import Instrument, Masters
from tests.simulator.money import ZERO, dec
from tests.simulator.wire import JsonObject, Refusal

_TAG = re.compile(r"[A-Za-z0-9]{1,20}")
_REQUIRED: dict[str, str] = {
    "symbol": "string",
    "qty": "integer",
    "type": "integer",
    "side": "integer",
    "productType": "string",
    "limitPrice": "number",
    "stopPrice": "number",
    "disclosedQty": "integer",
    "validity": "string",
    "offlineOrder": "boolean",
}
_OPTIONAL: dict[str, str] = {
    "stopLoss": "number",
    "takeProfit": "number",
    "orderTag": "string",
    "isSliceOrder": "boolean",
    "legType": "integer",
}
_ENUMS: dict[str, tuple[object, ...]] = {
    "type": (1, 2, 3, 4),
    "side": (1, -1),
    "productType": ("CNC", "INTRADAY", "MARGIN", "CO", "BO", "MTF"),
    "validity": ("DAY", "IOC"),
    "legType": (1, 2),
}
MAX_SLICES = 10


def bad(message: str) -> Refusal:
    """-50: invalid parameter."""
    return Refusal(-50, message)


def is_kind(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a JSON type; true and false are no numbers."""
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int)
    return isinstance(value, int) or (isinstance(value, float) and abs(value) < 1e12)


def parse_order(body: Any, masters: Masters, now: datetime) -> OrderIntent:
    """The order that a body asks for, or the refusal."""
    if not isinstance(body, dict):
        raise bad("Invalid input")
    instrument = masters.find(body["symbol"]) if isinstance(body.get("symbol"), str) else None
    if "symbol" in body and (instrument is None or _unusable(instrument, now)):
        raise bad("The input symbol is invalid.")
    _check_types(body)
    assert instrument is not None
    intent = OrderIntent(
        instrument=instrument,
        qty=body["qty"],
        kind=body["type"],
        side=body["side"],
        product=body["productType"],
        limit_price=dec(body["limitPrice"]),
        stop_price=dec(body["stopPrice"]),
        disclosed_qty=body["disclosedQty"],
        validity=body["validity"],
        offline=body["offlineOrder"],
        stop_loss=dec(body.get("stopLoss") or 0),
        take_profit=dec(body.get("takeProfit") or 0),
        leg_type=body.get("legType", 1),
        tag=body.get("orderTag", ""),
        slice=body.get("isSliceOrder", False),
    )
    _check_quantity(intent)
    check_prices(intent.instrument, intent.kind, intent.side, intent.limit_price, intent.stop_price)
    _check_distances(intent)
    _check_product(intent)
    _check_tag(body, intent)
    return intent


def _unusable(instrument: Instrument, now: datetime) -> bool:
    return instrument.lot <= 0 or (instrument.expiry is not None and instrument.expiry <= now)


def _check_types(body: JsonObject) -> None:
    for name, kind in _REQUIRED.items():
        if name not in body:
            raise bad(f"{name}: is required")
        if not is_kind(body[name], kind):
            raise bad(f"{name}: expected {kind}")
    for name, kind in _OPTIONAL.items():
        if body.get(name) is None and name in ("stopLoss", "takeProfit"):
            continue
        if name in body and not is_kind(body[name], kind):
            raise bad(f"{name}: expected {kind}")
    for name, allowed in _ENUMS.items():
        if name in body and body[name] not in allowed:
            raise bad(f"{name}: must be one of {', '.join(str(value) for value in allowed)}")


def _check_quantity(intent: OrderIntent) -> None:
    instrument = intent.instrument
    check_lot(instrument, intent.qty)
    if instrument.freeze is not None and intent.qty > instrument.freeze:
        slices = -(-intent.qty // slice_size(instrument))
        if not intent.slice or slices > MAX_SLICES:
            raise bad("Quantity exceeds the allowable freeze limit.")
    if intent.disclosed_qty != 0 and instrument.is_derivative:
        raise bad("disclosedQty: must be 0")


def check_lot(instrument: Instrument, qty: int) -> None:
    """A positive multiple of the lot."""
    if qty <= 0 or qty % instrument.lot:
        raise bad("Quantity should be multiple of min lot size.")


def slice_size(instrument: Instrument) -> int:
    """The largest whole number of lots within the freeze quantity."""
    assert instrument.freeze is not None
    return instrument.freeze // instrument.lot * instrument.lot


def check_prices(instrument: Instrument, kind: int, side: int, limit: Decimal, stop: Decimal) -> None:
    """Check limitPrice and stopPrice against the order type and the tick; for modifications too."""
    if kind in (1, 4) and limit < dec("0.0025"):
        raise bad("limitPrice: Must be greater than or equal to 0.0025")
    if kind in (2, 3) and limit != 0:
        raise bad("limitPrice does not match: 0")
    if kind in (3, 4) and stop < dec("0.0025"):
        raise bad("stopPrice: Must be greater than or equal to 0.0025")
    if kind in (1, 2) and stop != 0:
        raise bad("stopPrice does not match: 0")
    check_tick("LimitPrice", limit, instrument)
    check_tick("StopPrice", stop, instrument)
    if kind == 4 and side * (limit - stop) <= 0:
        raise bad("stopPrice: must be on the near side of limitPrice")


def check_tick(name: str, price: Decimal, instrument: Instrument) -> None:
    """(D) the wording, for StopLoss."""
    if price < 0:
        raise bad(f"{name[0].lower()}{name[1:]}: Must be greater than or equal to 0")
    if instrument.tick > 0 and price % instrument.tick != 0:
        raise bad(f"{name} not a multiple of tick size {instrument.tick:.4f}")


def _check_distances(intent: OrderIntent) -> None:
    if intent.leg_type == 1:
        check_tick("StopLoss", intent.stop_loss, intent.instrument)
        check_tick("TakeProfit", intent.take_profit, intent.instrument)
    elif min(intent.stop_loss, intent.take_profit) < 0:
        raise bad("stopLoss: Must be greater than or equal to 0")


def _check_product(intent: OrderIntent) -> None:
    exchange = intent.instrument.ticker.partition(":")[0]
    segment = {"NSE": "NFO", "BSE": "BFO"}.get(exchange, exchange)
    derivative = intent.instrument.is_derivative
    if derivative and intent.product in ("CNC", "MTF"):
        raise bad(f"Product {intent.product} not enabled on exchange {segment}")
    if not derivative and intent.product == "MARGIN":
        raise bad(f"Product MARGIN not enabled on exchange {exchange}")
    if intent.product in ("BO", "CO") and intent.stop_loss == ZERO:
        raise bad("stopLoss: Must be greater than or equal to 0.0025")
    if intent.product == "BO" and intent.take_profit == ZERO:
        raise bad("takeProfit: Must be greater than or equal to 0.0025")
    if intent.product == "CO" and intent.take_profit != ZERO:
        raise bad("takeProfit does not match: 0")
    if intent.product in ("BO", "CO") and intent.validity != "DAY":
        raise bad("validity: must be DAY")


def _check_tag(body: JsonObject, intent: OrderIntent) -> None:
    if "orderTag" not in body:
        return
    if intent.product in ("BO", "CO"):
        raise bad("orderTag is not allowed for CO and BO orders")
    if not _TAG.fullmatch(intent.tag) or intent.tag.lower() == "untagged":
        raise bad("orderTag: must be alphanumeric, 1 to 20 characters")
