"""The symbol master's JSON twin: freeze quantities, circuit prices and trade status, which the CSV has not.

A file of 98,000 rows is about 90 MB. It is read in pieces, so that it costs the child process no more memory than the
few values that are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TextIO

PIECE = 1 << 20
MOST_OF_AN_ENTRY = 1 << 16
"""Characters. A real entry has about 900."""
SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class TwinRow:
    """What one contract's entry says. None: it does not say, or nothing usable. Prices in rupees, as text."""

    freeze: int | None
    low: str | None
    high: str | None
    tradable: bool | None
    lot: int | None
    dated: str


TwinKey = tuple[str, str]
"""Ticker and fyToken: both have to be the CSV row's."""


def entries(text: TextIO) -> Iterator[dict[str, Any]]:
    """Every entry of `{"ticker": {…}, …}`, fractions as text. Raises ValueError for what is not that, whole."""
    decode = json.JSONDecoder(parse_float=str, parse_constant=str).raw_decode
    buffer = text.read(PIECE).lstrip(SPACE)
    if buffer[:1] != "{":
        raise ValueError("expected a JSON object")
    at, count = 1, 0
    while True:
        if len(buffer) - at < MOST_OF_AN_ENTRY:
            buffer, at = buffer[at:] + text.read(PIECE), 0
        at = _past_space(buffer, at)
        if buffer[at : at + 1] == "}" and not (buffer[at + 1 :] + text.read()).strip(SPACE):
            return
        if count:
            at = _past(buffer, at, ",")
        key, at = decode(buffer, at)
        value, at = decode(buffer, _past(buffer, _past_space(buffer, at), ":"))
        if not isinstance(key, str) or not isinstance(value, dict):
            raise ValueError("expected an object under each name")  # noqa: TRY004 - the content is wrong, not a call
        count += 1
        yield value


def option(entry: dict[str, Any]) -> tuple[TwinKey, TwinRow] | None:
    """An option's entry under its key; None for a future and for an entry without a ticker."""
    ticker, token = entry.get("symTicker"), entry.get("fyToken")
    if not isinstance(ticker, str) or not ticker.endswith(("CE", "PE")) or token is None:
        return None
    low, high = _price(entry.get("lowerPrice")), _price(entry.get("upperPrice"))
    if low is None or high is None or low > high:
        low = high = None
    return (ticker, str(token)), TwinRow(
        freeze=_whole(entry.get("qtyFreeze")),
        low=None if low is None else f"{low:f}",
        high=None if high is None else f"{high:f}",
        tradable={"0": False, "1": True}.get(str(entry.get("tradeStatus"))),
        lot=_whole(entry.get("minLotSize")),
        dated=str(entry.get("lastUpdate")),
    )


def _past_space(buffer: str, at: int) -> int:
    while buffer[at : at + 1] and buffer[at] in SPACE:
        at += 1
    return at


def _past(buffer: str, at: int, mark: str) -> int:
    if buffer[at : at + 1] != mark:
        raise ValueError(f"expected {mark!r} between the entries")
    return _past_space(buffer, at + 1)


def _price(value: object) -> Decimal | None:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        return None
    return price if price.is_finite() and price > 0 else None


def _whole(value: object) -> int | None:
    text = str(value).strip().removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0 else None  # noqa: PLR2004
