"""Fyers' wire for what changes something: tickets to fields, and the one function that judges an answer.

Facts: fyers-api.md 2. Nothing here does I/O. What reads answer is in `rows.py`.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from app.brokers.fyers.rows import JsonFields, json_object
from app.domain.alert import Product
from app.domain.order import OrderKind, Ticket
from app.domain.outcome import Accepted, Refused, Unknown

QUOTES_PER_CALL = 50
"""Fyers' bound on GET /data/quotes."""

_TYPES = {OrderKind.LIMIT: 1, OrderKind.MARKET: 2, OrderKind.STOP_LIMIT: 4}
_RUPEES = 1
"""legType: the distances are rupees. 2 would be percent of the entry price."""


def order_fields(ticket: Ticket) -> JsonFields:
    """POST /orders/sync. stopLoss and takeProfit are distances from entry in rupees, never price levels."""
    fields: JsonFields = {
        "symbol": ticket.ticker,
        "qty": ticket.quantity,
        "type": _TYPES[ticket.kind],
        "side": ticket.side.sign,
        "productType": ticket.product.value,
        "limitPrice": _number(ticket.limit_price),
        "stopPrice": _number(ticket.stop_price),
        "disclosedQty": 0,
        "validity": "DAY",
        "offlineOrder": False,
    }
    stop, target = ticket.stop_distance, ticket.target_distance
    if ticket.product in (Product.BO, Product.CO):
        fields |= {"stopLoss": _number(stop or Decimal(0)), "takeProfit": _number(target or Decimal(0))}
    elif stop is not None or target is not None:
        given = {"stopLoss": stop, "takeProfit": target}
        fields |= {name: _number(distance) for name, distance in given.items() if distance is not None}
        fields["legType"] = _RUPEES
    if ticket.tag:
        fields["orderTag"] = ticket.tag
    return fields


def protection_fields(position_id: str, stop: Decimal, target: Decimal, quantity: int | None) -> JsonFields:
    """PATCH /positions; zero removes a leg, so both are always said."""
    fields: JsonFields = {"positionId": position_id, "stopLoss": _number(stop), "takeProfit": _number(target)}
    if stop or target:
        fields["legType"] = _RUPEES
    if quantity is not None:
        fields["qty"] = quantity
    return fields


def _number(value: Decimal) -> float | int:
    """A JSON number. A float prints a price's few digits as they are."""
    return float(value) if value else 0


class Change(StrEnum):
    """What was asked for; each has its own success code and its own proofs of a no."""

    PLACE = "place"
    MODIFY = "modify"
    CANCEL = "cancel"
    PROTECT = "protect"
    CLOSE = "close"


_DONE: dict[Change, frozenset[int]] = {
    Change.PLACE: frozenset({1101}),
    Change.MODIFY: frozenset({1101, 1102}),
    Change.CANCEL: frozenset({1103}),
    # No public answer of PATCH /positions exists: the codes of a plain success and of a modification.
    Change.PROTECT: frozenset({200, 1101, 1102}),
    # Not 201: "counter order placed but not filled" and "no acknowledgement" share that code.
    Change.CLOSE: frozenset({200}),
}
_NAMES_ORDER = frozenset({Change.PLACE, Change.MODIFY, Change.CANCEL})
"""Their success carries the order's id; without it nothing is proven."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DOUBT = re.compile(
    r"time.?out|timed out|try again|connection|connect to|acknowledg|order ?book|internal|unavailable",
    re.IGNORECASE,
)
"""Words of an answer that does not know itself. They outrank every code."""


@dataclass(frozen=True, slots=True)
class _No:
    """One proven refusal: `s: error`, this code, with one of these HTTP statuses and a message like this."""

    code: int
    statuses: frozenset[int]
    message: str = r"\S"
    changes: AbstractSet[Change] = frozenset(Change)


_ANSWERED = frozenset({200, 400})
"""Errors are HTTP 400; one official sample shows -50 with 200."""
_OF_ORDERS = frozenset({Change.MODIFY, Change.CANCEL})
_OF_POSITIONS = frozenset({Change.PROTECT, Change.CLOSE})

REFUSALS: tuple[_No, ...] = (
    _No(-50, _ANSWERED),
    # The SDK's own connection errors had -99 too ("Bad request"): only a rejection in words is the server's.
    _No(-99, frozenset({400}), r"^\s*RED:|\breject"),
    *(_No(code, frozenset({401})) for code in (-8, -15, -16, -17)),
    *(_No(code, frozenset({429})) for code in (-429, 429, -353)),
    _No(-352, _ANSWERED),
    _No(-51, _ANSWERED, changes=_OF_ORDERS),
    *(_No(code, _ANSWERED, changes=_OF_ORDERS) for code in (-159, -161, -162, -164, -209)),
    _No(-53, _ANSWERED, changes=_OF_POSITIONS),
    *(_No(code, _ANSWERED, changes=_OF_POSITIONS) for code in (-397, -398)),
    *(
        _No(
            code, frozenset({403}), r"permission|not (?:allowed|permitted|authori[sz]ed)|restricted|forbidden"
        )
        for code in (-50, -373, -403, 403)
    ),
    _No(-373, frozenset({400})),
)

_MESSAGE_LENGTH = 300


def outcome_of(change: Change, status: int, body: bytes, subject: str = "") -> Accepted | Refused | Unknown:
    """What one whole answer proves. `subject` is the id that an answer without one is about.

    Accepted: 200, `s: ok`, the change's own code and, for orders, an id. Refused: a row of REFUSALS. All else is
    Unknown: 201, 5xx, HTML, half a body, a code or a message nobody has told us about.
    """
    if status == 429 and not body.strip():  # noqa: PLR2004 - documented: two headers and nothing in the body
        return Refused("429", "Fyers' rate limit: too many requests")
    answer = json_object(body)
    if answer is None:
        return Unknown(f"Fyers answered {status} without a readable body")
    code, message = answer.get("code"), answer.get("message", "")
    if type(code) is not int or not isinstance(message, str):
        return Unknown(f"Fyers answered {status} in an unknown form")
    text = message.strip()[:_MESSAGE_LENGTH]
    if status == 200 and answer.get("s") == "ok" and code in _DONE[change]:  # noqa: PLR2004 - HTTP's OK
        order = answer.get("id")
        if isinstance(order, str) and _ID.fullmatch(order):
            return Accepted(order, text)
        if change not in _NAMES_ORDER and order is None:
            return Accepted(subject, text)
    elif answer.get("s") == "error" and _is_proven(change, status, code, message):
        return Refused(str(code), text)
    return Unknown(f"Fyers answered {status}, code {code}: {text or 'no message'}")


def _is_proven(change: Change, status: int, code: int, message: str) -> bool:
    if _DOUBT.search(message):
        return False
    return any(
        no.code == code
        and status in no.statuses
        and change in no.changes
        and re.search(no.message, message, re.IGNORECASE)
        for no in REFUSALS
    )
