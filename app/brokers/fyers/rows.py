"""Fyers' answers to reads, as records. Facts: fyers-api.md 2.6.

A read is all or nothing: one row that cannot be understood makes the whole answer unreadable, because a book with a
row left out is a wrong book.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from app.domain.alert import IST, Exchange
from app.domain.order import Side
from app.errors import BrokerReadFailed
from app.service.records import BookOrder, BookStatus, Position, Quote, Trade

JsonFields = dict[str, object]
_T = TypeVar("_T")


class _UnreadableError(Exception):
    """Something in an answer is not what the documentation and real rows say."""


def quotes_of(status: int, body: bytes, asked: Collection[str]) -> dict[str, Quote]:
    """GET /data/quotes. An error row, a row left out and one that nobody asked for are absent."""

    def one(row: JsonFields) -> Quote | None:
        ticker = _text(row, "n")
        if row.get("s") != "ok" or ticker not in asked:
            return None
        values = row.get("v")
        if not isinstance(values, dict):
            raise _UnreadableError("expected v to be an object")
        prices = (_price(values.get(name)) for name in ("lp", "bid", "ask"))
        return Quote(ticker, *prices)

    rows = [quote for quote in _rows(status, body, "d", one) if quote is not None]
    found = {quote.ticker: quote for quote in rows}
    if len(found) != len(rows):
        raise BrokerReadFailed("Fyers' quotes name a symbol twice")
    return found


def book_of(status: int, body: bytes) -> tuple[BookOrder, ...]:
    """GET /orders."""
    return tuple(_rows(status, body, "orderBook", _book_order))


def positions_of(status: int, body: bytes) -> tuple[Position, ...]:
    """GET /positions."""
    return tuple(_rows(status, body, "netPositions", _position))


def trades_of(status: int, body: bytes) -> tuple[Trade, ...]:
    """GET /tradebook, in the order of the fills.

    Nobody has written down which way Fyers lists them, and times are whole seconds: so rows of one second keep their
    order, or their reverse in a list that runs from the newest to the oldest.
    """
    found = _rows(status, body, "tradeBook", _trade)
    if found and found[0].at > found[-1].at:
        found.reverse()
    return tuple(sorted(found, key=lambda trade: trade.at))


_EXCHANGES = {Exchange.NSE: 10, Exchange.BSE: 12}
_DERIVATIVES = 11
"""Fyers' numbers (fyers-api.md 4)."""


def market_open(status: int, body: bytes, exchange: Exchange) -> bool | None:
    """GET /data/marketStatus, of one exchange's derivatives. None when no row is about them."""

    def one(row: JsonFields) -> tuple[int, int, str]:
        return _whole(row, "exchange"), _whole(row, "segment"), _text(row, "status")

    wanted = (_EXCHANGES[exchange], _DERIVATIVES)
    found = _rows(status, body, "marketStatus", one)
    words = [word for place, segment, word in found if (place, segment) == wanted]
    return any(word.upper() == "OPEN" for word in words) if words else None


_STATES = frozenset(
    {
        BookStatus.CANCELLED,
        BookStatus.FILLED,
        BookStatus.TRANSIT,
        BookStatus.REJECTED,
        BookStatus.PENDING,
        BookStatus.EXPIRED,
    }
)
_STOP_TYPES = (3, 4)
"""Of `type`: a stop that becomes a market order, and one that becomes a limit (fyers-api.md 2.3)."""
_SIDES = {side.sign: side for side in Side}


def _book_order(row: JsonFields) -> BookOrder:
    status, side = _whole(row, "status"), _SIDES.get(_whole(row, "side"))
    quantity, filled = _whole(row, "qty"), _whole(row, "filledQty")
    if status not in _STATES or side is None or quantity < 0 or filled < 0:
        raise _UnreadableError(f"status {status}, side {row.get('side')}, qty {quantity}, filledQty {filled}")
    return BookOrder(
        broker_order_id=_text(row, "id"),
        ticker=_text(row, "symbol"),
        side=side,
        quantity=quantity,
        filled_quantity=filled,
        status=status,
        product=_text(row, "productType"),
        tag=_tag(row.get("orderTag")),
        placed_at=_moment(_text(row, "orderDateTime")),
        traded_price=_price(row.get("tradedPrice")),
        parent_id=_words(row, "parentId") or None,
        source=_words(row, "source"),
        message=_words(row, "message"),
        has_stop=_price(row.get("stopLoss")) is not None,
        has_target=_price(row.get("takeProfit")) is not None,
        is_stop=row.get("type") in _STOP_TYPES or _price(row.get("stopPrice")) is not None,
    )


def _trade(row: JsonFields) -> Trade:
    side, quantity = _SIDES.get(_whole(row, "side")), _whole(row, "tradedQty")
    if side is None or quantity <= 0:
        raise _UnreadableError(f"side {row.get('side')}, tradedQty {quantity}")
    return Trade(
        id=_text(row, "tradeNumber"),
        broker_order_id=_text(row, "orderNumber"),
        ticker=_text(row, "symbol"),
        product=_text(row, "productType"),
        side=side,
        quantity=quantity,
        price=_price(row.get("tradePrice")),
        at=_moment(_text(row, "orderDateTime")),
        tag=_tag(row.get("orderTag")),
    )


def _position(row: JsonFields) -> Position:
    average = row.get("netAvg", row.get("avgPrice"))
    return Position(
        id=_text(row, "id"),
        ticker=_text(row, "symbol"),
        product=_text(row, "productType"),
        net_quantity=_whole(row, "netQty"),
        average_price=_price(average),
        has_stop=_price(row.get("stopLoss")) is not None,
        has_target=_price(row.get("takeProfit")) is not None,
        profit=_amount(row.get("pl")),
    )


def _rows(status: int, body: bytes, name: str, read: Callable[[JsonFields], _T]) -> list[_T]:
    """Every row of a good answer, read. Raises BrokerReadFailed; its text quotes nothing but codes and fields."""
    envelope = json_object(body, constants=True)
    if status != 200 or envelope is None or envelope.get("s") != "ok":  # noqa: PLR2004 - HTTP's OK
        code = envelope.get("code") if envelope else "no JSON object"
        raise BrokerReadFailed(f"Fyers answered {status} ({code}) instead of {name}")
    rows = envelope.get(name)
    if not isinstance(rows, list):
        raise BrokerReadFailed(f"Fyers' answer has no list {name}")
    found = []
    for row in rows:
        if not isinstance(row, dict):
            raise BrokerReadFailed(f"a row of Fyers' {name} is no object")
        try:
            found.append(read(row))
        except _UnreadableError as error:
            raise BrokerReadFailed(f"a row of Fyers' {name} is unreadable: {error}") from error
    return found


def _text(row: JsonFields, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _UnreadableError(f"expected {name} to be a text")
    return value


def _words(row: JsonFields, name: str) -> str:
    """A text that may be left out or null."""
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _UnreadableError(f"expected {name} to be a text")
    return value


def _whole(row: JsonFields, name: str) -> int:
    value = row.get(name)
    if type(value) is int:
        return value
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    raise _UnreadableError(f"expected {name} to be a whole number")


_TOO_MUCH = Decimal(10) ** 9


def _price(value: object) -> Decimal | None:
    """A positive price; everything else is no price (a zero says "none" on this wire)."""
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 < value < _TOO_MUCH:
        return None
    return value


def _amount(value: object) -> Decimal | None:
    """Rupees of either sign; None when the row does not say them."""
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value) >= _TOO_MUCH:
        return None
    return value


def _tag(value: object) -> str | None:
    """`1:` marks the caller's tag, `2:` one that Fyers made (2:Untagged)."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _UnreadableError("expected orderTag to be a text")
    kind, colon, text = value.partition(":")
    if not colon:
        return kind
    return None if kind == "2" else text or None


_MONTHS = {
    name: n for n, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".upper().split(), 1)
}
_TIME = re.compile(r"(\d{2})-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2})", re.ASCII)


def _moment(text: str) -> datetime:
    """`09-Mar-2023 09:34:38`, IST, whatever this process' locale calls March."""
    found = _TIME.fullmatch(text)
    if found is None or found[2].upper() not in _MONTHS:
        raise _UnreadableError("expected a time such as 09-Mar-2023 09:34:38")
    day, year, hour, minute, second = (int(found[n]) for n in (1, 3, 4, 5, 6))
    try:
        local = datetime(year, _MONTHS[found[2].upper()], day, hour, minute, second, tzinfo=IST)
    except ValueError as error:
        raise _UnreadableError("expected a time that exists") from error
    return local.astimezone(UTC)


def json_object(body: bytes, *, constants: bool = False) -> JsonFields | None:
    """The body as one JSON object without repeated keys, else None. `constants`: NaN becomes a Decimal, not an end:
    a quote without a number is a quote without a price.
    """
    try:
        value = json.loads(
            body,
            parse_float=Decimal,
            parse_constant=Decimal if constants else _refuse,
            object_pairs_hook=_unique,
        )
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _unique(pairs: list[tuple[str, object]]) -> JsonFields:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
