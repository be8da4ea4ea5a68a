"""The paper exchange: its symbol master, its prices and what it does not take."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from app.brokers.paper.master import UNDERLYINGS, find_spec, listed_expiries, paper_master
from app.brokers.paper.pricing import black_scholes, model_quote, spot
from app.brokers.paper.rules import protected_price, refusal
from app.domain.alert import OptionType, Product
from app.domain.order import OrderKind, Side, Ticket
from tests.unit.paper_desk import (
    CALL,
    NOON,
    STOCK,
    TODAY,
    bracket,
    spec,
    ticket,
)


def rows(name: str, today: date = TODAY) -> list[list[str]]:
    return list(csv.reader(io.StringIO(paper_master(today)[name].decode())))


@pytest.mark.parametrize("name", ["NSE_FO.csv", "BSE_FO.csv", "NSE_CM.csv", "BSE_CM.csv"])
def test_every_master_row_has_21_columns_and_obeys_the_fytoken_rule(name: str) -> None:
    seen = set()
    for row in rows(name):
        assert len(row) == 21
        expiry = f"{datetime.fromtimestamp(int(row[8]), UTC):%y%m%d}" if row[8] else "000000"
        assert row[0] == row[10] + row[11] + expiry + row[12]
        assert row[7] == "2026-11-23"  # the 24th is a holiday
        seen.add((row[0], row[9]))
    assert len(seen) == len(rows(name)) == len({token for token, _ in seen}) == len({t for _, t in seen})


def test_the_name_is_monthly_exactly_on_the_last_expiry_of_its_month() -> None:
    nifty = [(d.isoformat(), last) for d, last in listed_expiries(UNDERLYINGS[0], TODAY)]
    assert nifty[:6] == [
        ("2026-12-01", False),
        ("2026-12-08", False),
        ("2026-12-15", False),
        ("2026-12-22", False),
        ("2026-12-29", True),
        ("2027-01-05", False),
    ]
    tickers = {row[9] for row in rows("NSE_FO.csv")}
    assert {"NSE:NIFTY26D0126000CE", "NSE:NIFTY26DEC26000PE", "NSE:NIFTY2710526000CE"} <= tickers
    assert "BSE:SENSEX26NOV85000CE" in {row[9] for row in rows("BSE_FO.csv")}


def test_an_expiry_on_a_holiday_moves_to_the_trading_day_before_and_stays_monthly() -> None:
    moved = listed_expiries(UNDERLYINGS[0], date(2026, 11, 20))[0]
    assert moved == (date(2026, 11, 23), True)
    assert find_spec("NSE:BANKNIFTY26NOV59000CE", date(2026, 11, 20)) is not None


def test_the_twin_has_the_freeze_quantities_and_the_cash_file_the_underlyings() -> None:
    twin = json.loads(paper_master(TODAY)["NSE_FO_sym_master.json"])
    assert twin[CALL]["qtyFreeze"] == "1800"
    assert twin["NSE:BANKNIFTY26DEC59000CE"]["qtyFreeze"] == "600"
    by_token = {row[0]: row[9] for name in ("NSE_CM.csv", "BSE_CM.csv") for row in rows(name)}
    under = {by_token[row[17]] for name in ("NSE_FO.csv", "BSE_FO.csv") for row in rows(name)}
    assert {"NSE:NIFTY50-INDEX", "NSE:NIFTYBANK-INDEX", "BSE:SENSEX-INDEX", "NSE:SBIN-EQ"} <= under
    lots = {row[13]: row[3] for row in rows("NSE_FO.csv")}
    assert (lots["NIFTY"], lots["BANKNIFTY"], lots["FINNIFTY"], lots["MIDCPNIFTY"]) == (
        "65",
        "30",
        "60",
        "120",
    )


def test_the_session_ends_at_15_40_ist() -> None:
    row = next(r for r in rows("NSE_FO.csv") if r[9] == CALL)
    assert datetime.fromtimestamp(int(row[8]), UTC) == datetime(2026, 12, 29, 10, 10, tzinfo=UTC)
    assert row[6].startswith("0915-1540")


def test_prices_are_a_function_of_seed_and_time_and_they_move() -> None:
    first = model_quote(1, CALL, NOON)
    assert first is not None
    assert first == model_quote(1, CALL, NOON)
    assert first != model_quote(2, CALL, NOON)
    assert len({model_quote(1, CALL, NOON + timedelta(minutes=m)) for m in range(30)}) > 20
    assert model_quote(1, "NSE:NIFTY26DEC99999CE", NOON) is None
    assert model_quote(1, "NSE:NIFTY50-INDEX", NOON) is not None


def test_quotes_stand_on_the_tick_with_the_last_price_between_bid_and_ask() -> None:
    for ticker in ("NSE:NIFTY26D0120800PE", CALL, STOCK, "BSE:SENSEX26NOV85000PE"):
        quote = model_quote(1, ticker, NOON)
        assert quote is not None
        assert quote.ltp
        assert quote.bid
        assert quote.ask
        assert quote.bid <= quote.ltp < quote.ask
        assert all(p % Decimal("0.05") == 0 for p in (quote.ltp, quote.bid, quote.ask))


def test_the_walk_stays_among_the_listed_strikes() -> None:
    for underlying in UNDERLYINGS:
        for day in range(0, 400, 3):
            price = spot(1, underlying, NOON + timedelta(days=day))
            assert abs(price / underlying.spot - 1) < 0.05


def test_put_call_parity_and_intrinsic_value_at_the_end() -> None:
    call = black_scholes(100, 95, 0.1, 0.2, OptionType.CE)
    put = black_scholes(100, 95, 0.1, 0.2, OptionType.PE)
    assert call - put == pytest.approx(100 - 95 * 2.718281828 ** (-0.065 * 0.1))
    assert black_scholes(100, 95, 0, 0.2, OptionType.CE) == 5
    assert black_scholes(100, 95, 0, 0.2, OptionType.PE) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (ticket(quantity=64), "lot size"),
        (ticket(quantity=1820), "freeze"),
        (ticket(stop_distance=Decimal("1.03")), "StopLoss not a multiple of tick size 0.0500"),
        (ticket(target_distance=Decimal("1.03")), "TakeProfit not a multiple"),
        (ticket(limit_price=Decimal(5)), "limitPrice does not match: 0"),
        (ticket(kind=OrderKind.LIMIT), "greater than or equal"),
        (ticket(kind=OrderKind.STOP_LIMIT, limit_price=Decimal(5)), "stopPrice"),
        (
            ticket(kind=OrderKind.STOP_LIMIT, limit_price=Decimal(5), stop_price=Decimal(6)),
            "below limitPrice",
        ),
        (ticket(tag="has-hyphen"), "alphanumeric"),
        (ticket(tag="A" * 21), "20 at most"),
        (bracket(stop_distance=None), "StopLoss is needed"),
        (bracket(target_distance=None), "TakeProfit is needed"),
        (bracket(product=Product.CO), "not taken"),
    ],
)
def test_what_the_exchange_does_not_take(wrong: Ticket, words: str) -> None:
    assert words in (refusal(wrong, spec(), NOON) or "")


def test_a_contract_is_unknown_when_it_is_not_listed_or_its_session_is_over() -> None:
    assert refusal(ticket(), None, NOON) == "The input symbol is invalid."
    assert refusal(ticket(), spec(), spec().session_end) == "The input symbol is invalid."
    assert refusal(ticket(), spec(), NOON) is None
    assert refusal(bracket(), spec(), NOON) is None


@pytest.mark.parametrize(
    ("side", "last", "price"),
    [("BUY", "10", "11.50"), ("SELL", "1", "0.05"), ("BUY", "20", "23.00"), ("SELL", "100", "90.00")],
)
def test_market_protection(side: str, last: str, price: str) -> None:
    assert protected_price(Side(side), Decimal(last)) == Decimal(price)
