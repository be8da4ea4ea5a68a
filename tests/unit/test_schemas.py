"""Parsed bodies to alerts: spellings, numbers, and refusals that name the field."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Action, Alert, Exchange, ExpiryRule, KeyKind, OptionType, Product
from app.errors import InvalidAlert
from app.web.schemas import to_alert

NOW = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
BODY: dict[str, Any] = {
    "token": "hidden-value",
    "symbol": "NIFTY",
    "strikeprice": 24500,
    "optionType": "CE",
    "expiry": "WEEKLY",
    "action": "BUY",
    "qty": 65,
}


def alert(header: str | None = None, /, **changes: object) -> Alert:
    body = {k: v for k, v in {**BODY, **changes}.items() if v is not ...}
    return to_alert(body, "default", NOW, header, Product.INTRADAY)


def test_plain_alert() -> None:
    found = alert()
    assert (found.symbol, found.strike, found.option_type) == ("NIFTY", Decimal(24500), OptionType.CE)
    assert (found.expiry, found.action, found.qty) == (ExpiryRule.WEEKLY, Action.BUY, 65)
    assert found.product is Product.INTRADAY


def test_names_and_values_in_any_case_and_numbers_as_texts() -> None:
    body = {"SYMBOL": "nifty", "StrikePrice": "24500.5", "OPTIONTYPE": "pe", "Expiry": "2026-12-29"}
    body |= {"ACTION": "sell", "Qty": "65", "PRODUCTTYPE": "margin"}
    found = to_alert(body, "default", NOW, None, Product.INTRADAY)
    assert (found.symbol, found.strike, found.expiry) == ("NIFTY", Decimal("24500.5"), date(2026, 12, 29))
    assert (found.qty, found.product) == (65, Product.MARGIN)


NO_QUANTITY: tuple[Any, ...] = (
    0,
    -1,
    True,
    "1_000",
    "1,000",
    "٦٥",
    "６５",
    Decimal("1.5"),
    "nan",
    [],
    {},
    10**9,
)
WRONG: list[tuple[str, Any]] = [
    *[("qty", v) for v in NO_QUANTITY],
    *[("strikeprice", v) for v in (0, -5, "inf", "NaN", True, None, "2_4500", 10**12)],
    *[("symbol", v) for v in ("", 5, "NI FTY", "X" * 40, "{{ticker}}")],
    *[("action", v) for v in ("HOLD", 1, "{{strategy.order.action}}")],
    *[("expiry", v) for v in ("SOON", "2026-02-30", 20261229)],
    *[("optionType", v) for v in ("XX", None)],
    *[("strategy", v) for v in ("too long a name, " * 4, ["x"])],
    ("idempotency_key", "k" * 201),
    ("idempotency_key", ["k"]),
    ("fired_at", []),
    *[("fired_at", v) for v in ("2026-11-24T05:00:00", "2026-11-24", "now")],
    *[("fired_at", v) for v in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")],
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{f}-{i}" for i, (f, _) in enumerate(WRONG)])
def test_refusal_names_the_field_and_never_the_token(field: str, value: object) -> None:
    with pytest.raises(InvalidAlert) as caught:
        alert(**{field: value})
    assert [e.field for e in caught.value.errors] == [field]
    assert "hidden-value" not in caught.value.detail
    assert len(caught.value.detail) < 400


def test_more_lots_than_a_row_could_hold_in_contracts_are_refused() -> None:
    assert alert(qty=..., lots=10_000).lots == 10_000
    with pytest.raises(InvalidAlert, match="lots: expected a positive whole number up to 10000, was 10001"):
        alert(qty=..., lots=10_001)


def test_exactly_one_of_qty_and_lots_but_none_for_an_exit() -> None:
    assert alert(qty=..., lots="2").lots == 2
    assert alert(qty=..., action="EXIT").qty is None
    with pytest.raises(InvalidAlert, match=r"qty.*both"):
        alert(lots=1)
    with pytest.raises(InvalidAlert, match=r"qty.*neither"):
        alert(qty=...)


@pytest.mark.parametrize("value", ["na", "NaN", True, [], {}, None, "", "12x"])
def test_levels_that_are_no_numbers_become_none(value: object) -> None:
    assert alert(sl=value, tp=value).warnings == ()


@pytest.mark.parametrize("value", ["na", "NaN", True, [], {}, 0, -3, "{{close}}", 10**12])
def test_a_signals_price_that_is_none_is_said_and_refuses_nothing(value: object) -> None:
    found = alert(price=value)
    assert found.signal_price is None
    assert any(w.startswith("price ") for w in found.warnings)


def test_a_signals_price_is_taken_as_it_stands() -> None:
    found = alert(price="142.35")
    assert (found.signal_price, found.warnings) == (Decimal("142.35"), ())


def test_unknown_fields_are_said() -> None:
    assert any("colour" in w for w in alert(colour="red").warnings)


def test_delayed_feed_is_noticed() -> None:
    found = alert(exchange="NSE_DLY")
    assert found.delayed_feed
    assert found.exchange is Exchange.NSE
    assert alert(ticker="BSE_DL:SENSEX").delayed_feed
    assert not alert(exchange="BSE").delayed_feed


def test_token_plays_no_part_in_the_key() -> None:
    assert alert(token="a").key == alert(token="b").key
    assert alert(qty=130).key != alert().key
    # The header is the stronger of two explicit keys.
    assert alert("K1", idempotency_key="K2").key.digest == alert(idempotency_key="K1").key.digest


@pytest.mark.parametrize(
    "text", ["2026-11-24T05:00:00Z", "2026-11-24T10:30:00+05:30", "2026-11-24 05:00:00+00:00"]
)
def test_the_time_of_firing_is_utc_inside(text: str) -> None:
    fired = alert(fired_at=text).fired_at
    assert (fired, fired and fired.tzinfo) == (NOW, UTC)


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_header_key_of_a_wrong_length_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(InvalidAlert) as caught:
        alert(key)
    assert [e.field for e in caught.value.errors] == ["Idempotency-Key"]
    assert alert("k" * 200).key.kind is KeyKind.EXPLICIT


def test_an_empty_key_in_the_body_is_none_at_all() -> None:
    assert alert(idempotency_key="").key.kind is KeyKind.DERIVED


def test_a_field_in_two_spellings_is_refused() -> None:
    with pytest.raises(InvalidAlert, match="twice"):
        alert(QTY=130)


@pytest.mark.parametrize(
    "field", ["symbol", "strikeprice", "optionType", "expiry", "action", "qty", "strategy"]
)
def test_a_placeholder_is_named_whatever_the_field(field: str) -> None:
    body = {
        "symbol": "NIFTY",
        "strikeprice": 24500,
        "optionType": "CE",
        "expiry": "WEEKLY",
        "action": "BUY",
        "qty": 65,
        field: "{{strategy.order.action}}",
    }
    with pytest.raises(InvalidAlert) as caught:
        to_alert(body, "default", datetime(2026, 11, 24, tzinfo=UTC), None, Product.INTRADAY)
    assert [e.field for e in caught.value.errors] == [field]
    assert "placeholder" in caught.value.errors[0].message
