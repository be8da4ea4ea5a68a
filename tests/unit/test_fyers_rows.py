"""Fyers' answers to reads: what rows mean, that one bad row fails the whole, and how long a token lasts."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.brokers.fyers import rows
from app.brokers.fyers.login import StaticTokens
from app.domain.order import Side
from app.errors import BrokerReadFailed
from app.service.records import Quote, Trade

CALL = "NSE:NIFTY26D0124500CE"
HTML = "<!DOCTYPE html><html><head><title>503 Service Temporarily Unavailable</title></head></html>"
NOT_AUTHENTICATED = b'{"s":"error","code":-16,"message":"Could not authenticate the user"}'

ROW: dict[str, Any] = {
    "id": "23030900015105",
    "qty": 65,
    "filledQty": 65,
    "tradedPrice": 6.95,
    "symbol": CALL,
    "message": "",
    "orderDateTime": "09-Mar-2023 09:34:38",
    "productType": "INTRADAY",
    "side": -1,
    "status": 2,
    "source": "W",
    "orderTag": "1:Ordertag",
    "takeProfit": 0,
    "stopLoss": 0,
}
NET: dict[str, Any] = {
    "id": f"{CALL}-INTRADAY",
    "symbol": CALL,
    "productType": "INTRADAY",
    "netQty": -65,
    "netAvg": 71.2,
}

FILL: dict[str, Any] = {
    "orderDateTime": "07-Aug-2020 13:51:12",
    "orderNumber": "120080789075",
    "side": 1,
    "productType": "INTRADAY",
    "tradedQty": 65,
    "tradePrice": 32.7,
    "tradeNumber": "52605023",
    "symbol": CALL,
    "orderTag": "1:Ordertag",
}


def read(name: str, *listed: object, s: str = "ok") -> bytes:
    return json.dumps({"s": s, "code": 200, "message": "", name: list(listed)}).encode()


def test_a_row_of_the_book() -> None:
    (order,) = rows.book_of(200, read("orderBook", ROW))
    assert (order.side, order.quantity, order.filled_quantity, order.status) == (Side.SELL, 65, 65, 2)
    assert order.placed_at == datetime(2023, 3, 9, 4, 4, 38, tzinfo=UTC)
    assert order.traded_price == Decimal("6.95")
    assert (order.parent_id, order.source, order.has_stop, order.has_target) == (None, "W", False, False)
    assert rows.book_of(200, read("orderBook")) == ()


@pytest.mark.parametrize(
    ("wire", "tag"),
    [("1:ABCD1", "ABCD1"), ("2:Untagged", None), ("2:Auto", None), ("", None), (None, None), ("1:", None)],
)
def test_tags_are_stripped_of_their_mark(wire: str | None, tag: str | None) -> None:
    (order,) = rows.book_of(200, read("orderBook", ROW | {"orderTag": wire}))
    assert order.tag == tag


@pytest.mark.parametrize(
    "spoilt",
    [
        {"id": 1},
        {"id": ""},
        {"qty": "65"},
        {"qty": 6.5},
        {"filledQty": None},
        {"side": 0},
        {"status": 3},
        {"status": True},
        {"symbol": None},
        {"orderDateTime": "2023-03-09 09:34:38"},
        {"orderDateTime": "31-Feb-2023 09:34:38"},
        {"orderTag": 5},
    ],
)
def test_one_unreadable_row_fails_the_whole_book(spoilt: dict[str, Any]) -> None:
    with pytest.raises(BrokerReadFailed):
        rows.book_of(200, read("orderBook", ROW, ROW | spoilt))


def test_a_row_of_the_trade_book() -> None:
    at = datetime(2020, 8, 7, 8, 21, 12, tzinfo=UTC)
    (trade,) = rows.trades_of(200, read("tradeBook", FILL))
    assert trade == Trade(
        "52605023", "120080789075", CALL, "INTRADAY", Side.BUY, 65, Decimal("32.7"), at, "Ordertag"
    )
    (hand,) = rows.trades_of(200, read("tradeBook", FILL | {"orderTag": "2:Untagged", "tradePrice": 0}))
    assert (hand.tag, hand.price) == (None, None)
    assert rows.trades_of(200, read("tradeBook")) == ()


def test_trades_come_in_the_order_of_the_fills_whichever_way_the_list_runs() -> None:
    seconds = {"1": "11", "2": "12", "3": "12", "4": "13"}
    fills = [FILL | {"tradeNumber": n, "orderDateTime": f"07-Aug-2020 13:51:{s}"} for n, s in seconds.items()]
    for listed in (fills, fills[::-1]):
        assert [t.id for t in rows.trades_of(200, read("tradeBook", *listed))] == ["1", "2", "3", "4"]
    mixed = (fills[1], fills[0], fills[3], fills[2])
    assert [t.id for t in rows.trades_of(200, read("tradeBook", *mixed))] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "spoilt",
    [
        *({"tradeNumber": ""}, {"orderNumber": None}, {"symbol": 1}, {"productType": ""}, {"side": 0}),
        *({"tradedQty": 0}, {"tradedQty": "65"}, {"orderDateTime": "07-08-2020 13:51:12"}, {"orderTag": 5}),
    ],
)
def test_one_unreadable_row_fails_the_whole_trade_book(spoilt: dict[str, Any]) -> None:
    with pytest.raises(BrokerReadFailed):
        rows.trades_of(200, read("tradeBook", FILL, FILL | spoilt))


def test_a_failed_trade_book_never_means_that_nothing_traded() -> None:
    for status, answer in ((401, NOT_AUTHENTICATED), (200, HTML.encode()), (200, read("orderBook"))):
        with pytest.raises(BrokerReadFailed):
            rows.trades_of(status, answer)


def test_a_position_and_its_overlay() -> None:
    (short,) = rows.positions_of(200, read("netPositions", NET))
    assert (short.net_quantity, short.average_price, short.has_stop) == (-65, Decimal("71.2"), False)
    (flat,) = rows.positions_of(200, read("netPositions", NET | {"netQty": 0, "netAvg": 0, "stopLoss": 15.0}))
    assert (flat.net_quantity, flat.average_price, flat.has_stop) == (0, None, True)
    with pytest.raises(BrokerReadFailed):
        rows.positions_of(200, read("netPositions", NET, NET | {"netQty": "65"}))


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, HTML.encode()),
        (200, read("orderBook", ROW)[:-5]),
        (200, read("orderBook", s="error")),
        (200, b'{"s":"ok","orderBook":null}'),
        (200, b'{"s":"ok"}'),
        (200, read("orderBook", 1)),
        (401, NOT_AUTHENTICATED),
        (500, read("orderBook")),
    ],
)
def test_a_failed_read_never_means_empty(status: int, answer: bytes) -> None:
    with pytest.raises(BrokerReadFailed):
        rows.book_of(status, answer)


@pytest.mark.parametrize("price", ["0", "null", "-1", "NaN", "Infinity", '"100"', "1e999", "true"])
def test_a_price_that_is_none_is_never_a_number(price: str) -> None:
    answer = f'{{"s":"ok","d":[{{"n":"{CALL}","s":"ok","v":{{"lp":{price},"bid":99.95,"ask":100.05}}}}]}}'
    quote = rows.quotes_of(200, answer.encode(), [CALL])[CALL]
    assert quote == Quote(CALL, None, Decimal("99.95"), Decimal("100.05"))


def test_quotes_keep_only_good_rows_that_were_asked_for() -> None:
    values = {"lp": 100, "bid": 99.5}
    listed = [{"n": name, "s": "ok", "v": values} for name in (CALL, "NSE:OTHER")]
    bad = {"n": "NSE:BAD", "s": "error", "v": {"errmsg": "invalid symbol", "code": -300}}
    found = rows.quotes_of(200, read("d", *listed, bad), [CALL, "NSE:BAD", "NSE:MISSING"])
    assert found == {CALL: Quote(CALL, Decimal(100), Decimal("99.5"), None)}
    with pytest.raises(BrokerReadFailed):
        rows.quotes_of(200, read("d", listed[0], listed[0]), [CALL])


def jwt(payload: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{middle}.c2ln"


def test_a_token_lasts_as_long_as_it_says() -> None:
    end = datetime(2026, 11, 25, 0, 30, 20, tzinfo=UTC)
    tokens = StaticTokens(jwt({"exp": int(end.timestamp()), "sub": "access_token"}), end.replace(hour=0))
    assert tokens.ends_at == end
    assert tokens.current(end.replace(second=19)) is not None
    assert tokens.current(end) is None


@pytest.mark.parametrize(
    "token", ["t", "a.b.c", jwt([]), jwt({}), jwt({"exp": "x"}), jwt({"exp": True}), jwt({"exp": 1e30})]
)
@pytest.mark.parametrize(
    ("started", "end"),
    [
        (datetime(2026, 11, 24, 4, 0, tzinfo=UTC), datetime(2026, 11, 25, 0, 30, tzinfo=UTC)),
        (datetime(2026, 11, 24, 0, 29, tzinfo=UTC), datetime(2026, 11, 24, 0, 30, tzinfo=UTC)),
        (datetime(2026, 11, 24, 0, 30, tzinfo=UTC), datetime(2026, 11, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_token_that_says_nothing_ends_at_six(token: str, started: datetime, end: datetime) -> None:
    assert StaticTokens(token, started).ends_at == end


def test_no_token_is_none() -> None:
    assert (
        StaticTokens(" ", datetime(2026, 11, 24, tzinfo=UTC)).current(datetime(2026, 11, 24, tzinfo=UTC))
        is None
    )
