"""Fyers' wire: what a ticket becomes, and what an answer proves."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.brokers.fyers.wire import Change, order_fields, outcome_of, protection_fields
from app.domain.alert import Product
from app.domain.order import OrderKind, Side, Ticket
from app.domain.outcome import Accepted, Refused, Unknown

CALL = "NSE:NIFTY26D0124500CE"
RED = "RED:Margin Shortfall:INR 5,25,690.20 Available:INR 0.00 for C-XS00001 [FYERS_RISK_CUG]"
ALGO = "Request rejected: Order placement restricted. Algo orders are not allowed from this app X-100"
HTML = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"
PLACE, MODIFY, CANCEL, PROTECT, CLOSE = Change


def body(s: object = "error", code: object = -50, message: object = "no", **more: object) -> bytes:
    return json.dumps({"s": s, "code": code, "message": message, **more}).encode()


# --- tickets ----------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "symbol": CALL,
    "qty": 65,
    "type": 2,
    "side": 1,
    "productType": "INTRADAY",
    "limitPrice": 0,
    "stopPrice": 0,
    "disclosedQty": 0,
    "validity": "DAY",
    "offlineOrder": False,
}
D = Decimal


@pytest.mark.parametrize(
    ("ticket", "changed"),
    [
        (Ticket(CALL, Side.BUY, 65, Product.INTRADAY, None), {}),
        (
            Ticket(CALL, Side.SELL, 65, Product.MARGIN, "ABCD1", D("15.05"), D("25.00")),
            {"side": -1, "productType": "MARGIN", "orderTag": "ABCD1"}
            | {"stopLoss": 15.05, "takeProfit": 25.0, "legType": 1},
        ),
        (
            Ticket(CALL, Side.BUY, 65, Product.INTRADAY, "A", D("15.00")),
            {"orderTag": "A", "stopLoss": 15.0, "legType": 1},
        ),
        (
            Ticket(CALL, Side.BUY, 65, Product.BO, None, D("15.00"), D("25.00")),
            {"productType": "BO", "stopLoss": 15.0, "takeProfit": 25.0},
        ),
        (
            Ticket(CALL, Side.BUY, 65, Product.CO, None, D("15.00")),
            {"productType": "CO", "stopLoss": 15.0, "takeProfit": 0},
        ),
        (
            Ticket(CALL, Side.BUY, 65, Product.INTRADAY, None, kind=OrderKind.LIMIT, limit_price=D("99.95")),
            {"type": 1, "limitPrice": 99.95},
        ),
        (
            Ticket(
                CALL,
                Side.SELL,
                65,
                Product.INTRADAY,
                None,
                kind=OrderKind.STOP_LIMIT,
                limit_price=D(80),
                stop_price=D(81),
            ),
            {"type": 4, "side": -1, "limitPrice": 80.0, "stopPrice": 81.0},
        ),
    ],
)
def test_a_ticket_becomes_exactly_these_fields(ticket: Ticket, changed: dict[str, Any]) -> None:
    fields = order_fields(ticket)
    assert fields == PLAIN | changed
    assert json.loads(json.dumps(fields)) == fields


def test_protection_says_both_distances_and_zero_removes_them() -> None:
    assert protection_fields("P", D(0), D(0), None) == {"positionId": "P", "stopLoss": 0, "takeProfit": 0}
    assert protection_fields("P", D("15.05"), D(0), 65) == {
        "positionId": "P",
        "stopLoss": 15.05,
        "takeProfit": 0,
        "legType": 1,
        "qty": 65,
    }


# --- outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "answer", "code"),
    [
        (PLACE, 400, body(code=-50, message="The input symbol is invalid."), "-50"),
        (PLACE, 200, body(code=-50, message="StopLoss not a multiple of tick size 0.0500"), "-50"),
        (PLACE, 400, body(code=-50, message=ALGO), "-50"),
        (PLACE, 403, body(code=-50, message=ALGO), "-50"),
        (PLACE, 403, body(code=-373, message="You do not have permission"), "-373"),
        (PLACE, 400, body(code=-99, message=RED), "-99"),
        (PLACE, 400, body(code=-99, message=RED, id="26112400000001"), "-99"),
        (PLACE, 400, body(code=-99, message="Order rejected by the exchange"), "-99"),
        (PLACE, 401, body(code=-8, message="Token expired"), "-8"),
        (PLACE, 401, body(code=-15, message="Please provide valid token"), "-15"),
        (PLACE, 401, body(code=-16, message="Could not authenticate the user"), "-16"),
        (PLACE, 401, body(code=-17, message="Token is Invalid or Expired"), "-17"),
        (PLACE, 429, body(code=-429, message="request limit reached"), "-429"),
        (PLACE, 429, body(code=429, message="request limit reached"), "429"),
        (PLACE, 429, body(code=-353, message="API Limit exceeded"), "-353"),
        (PLACE, 429, b"", "429"),
        (PLACE, 400, body(code=-352, message="invalid app id"), "-352"),
        (CANCEL, 400, body(code=-51, message="invalid order id"), "-51"),
        (CANCEL, 400, body(code=-161, message="Order already cancelled"), "-161"),
        (CANCEL, 400, body(code=-162, message="Order already traded"), "-162"),
        (MODIFY, 400, body(code=-164, message="Order already rejected"), "-164"),
        (PROTECT, 400, body(code=-53, message="invalid position id"), "-53"),
        (CLOSE, 400, body(code=-352, message="There are no open positions to exit"), "-352"),
    ],
)
def test_a_proven_no(change: Change, status: int, answer: bytes, code: str) -> None:
    outcome = outcome_of(change, status, answer)
    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert outcome.message


@pytest.mark.parametrize(
    ("change", "answer", "wanted"),
    [
        (PLACE, body("ok", 1101, "done", id="26112400000001"), "26112400000001"),
        (PLACE, body("ok", 1101, "done", id="25070400129405-BO-1"), "25070400129405-BO-1"),
        (MODIFY, body("ok", 1101, "done", id="1"), "1"),
        (MODIFY, body("ok", 1102, "done", id="1"), "1"),
        (CANCEL, body("ok", 1103, "done", id="1"), "1"),
        (PROTECT, body("ok", 200, "done"), "P"),
        (CLOSE, body("ok", 200, "The position is closed."), "P"),
    ],
)
def test_an_acceptance(change: Change, answer: bytes, wanted: str) -> None:
    outcome = outcome_of(change, 200, answer, "P")
    assert isinstance(outcome, Accepted)
    assert outcome.broker_order_id == wanted


SLICE = {"code": 1101, "message": "Order Slice placed successfully", "data": [{"body": {"id": "1"}}]}
GOOD = body("ok", 1101, "Successfully placed order", id="26112400000001")


@pytest.mark.parametrize(
    ("change", "status", "answer"),
    [
        *(
            (PLACE, 400, body(code=c, message="Connection error. Please try again"))
            for c in range(-206, -200)
        ),
        (PLACE, 400, body(code=-96, message="Unexpected error")),
        (PLACE, 400, body(code=-99, message="Bad request")),
        (PLACE, 200, body(code=-99, message=RED)),
        (PLACE, 500, body(code=-99, message=RED)),
        (PLACE, 500, body(code=-50, message="The input symbol is invalid.")),
        (PLACE, 400, body(code=-50, message="Connection error. Please try again")),
        (PLACE, 400, body(code=-50, message="")),
        (PLACE, 400, body(code=-16, message="Could not authenticate the user")),
        (PLACE, 400, body(code=-51, message="invalid order id")),
        (PLACE, 400, body(code=-9999, message="new")),
        (PLACE, 200, body("ok", 201, "no acknowledgement", id="26112400000001")),
        (PLACE, 200, body("ok", 201, "no acknowledgement")),
        (CLOSE, 200, body("ok", 201, "Exit order placed")),
        (PLACE, 200, body("ok", 1101, "done")),
        (PLACE, 200, body("ok", 1101, "done", id="")),
        (PLACE, 200, body("ok", 1101, "done", id=26112400000001)),
        (PLACE, 200, body("ok", 1101, "Order queued successfully.", id_fyers="c6697c04")),
        (PLACE, 200, json.dumps(SLICE).encode()),
        (PLACE, 200, body("ok", 1103, "done", id="1")),
        (CANCEL, 200, body("ok", 1101, "done", id="1")),
        (PLACE, 202, GOOD),
        (PLACE, 200, GOOD[: len(GOOD) // 2]),
        (PLACE, 200, GOOD.replace(b"{", b'{"s":"error",')),
        (PLACE, 200, body("ok", True, "done", id="1")),
        (PLACE, 200, body("error", 200, "Bad request")),
        *((PLACE, status, HTML.encode()) for status in (200, 400, 401, 403, 429, 500, 502, 503)),
        *((PLACE, status, b"") for status in (200, 400, 403, 500, 503)),
        (PLACE, 400, b"[]"),
        (PLACE, 400, b"\xff\xfe"),
        (PLACE, 400, b"[" * 100_000),
        (PLACE, 400, b'{"s":"error","code":-50,"message":"no","x":NaN}'),
    ],
)
def test_everything_else_is_unknown(change: Change, status: int, answer: bytes) -> None:
    assert isinstance(outcome_of(change, status, answer, "P"), Unknown)


# The allowlist once more, written down apart from the code, as (codes, HTTP statuses, message, changes).
ALL, ORDERS, POSITIONS = set(Change), {MODIFY, CANCEL}, {PROTECT, CLOSE}
ALLOWED: list[tuple[set[int], set[int], str, set[Change]]] = [
    ({-50, -352}, {200, 400}, r"\S", ALL),
    ({-99}, {400}, r"(?i)^\s*RED:|\breject", ALL),
    ({-8, -15, -16, -17}, {401}, r"\S", ALL),
    ({-429, 429, -353}, {429}, r"\S", ALL),
    ({-51, -159, -161, -162, -164, -209}, {200, 400}, r"\S", ORDERS),
    ({-53, -397, -398}, {200, 400}, r"\S", POSITIONS),
    ({-50, -373, -403, 403}, {403}, r"(?i)permi|allowed|author|restricted|forbidden", ALL),
    ({-373}, {400}, r"\S", ALL),
]
DONE = {PLACE: {1101}, MODIFY: {1101, 1102}, CANCEL: {1103}, PROTECT: {200, 1101, 1102}, CLOSE: {200}}


def may_be(change: Change, status: int, answer: bytes) -> type:
    """The only proof that this answer could be of: Accepted, Refused or nothing (Unknown)."""
    if status == 429 and not answer.strip():
        return Refused
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return Unknown
    if not isinstance(value, dict) or type(value.get("code")) is not int:
        return Unknown
    code, message, named = value["code"], value.get("message", ""), value.get("id")
    if value.get("s") == "ok":
        has_id = (isinstance(named, str) and named.strip()) or (change in POSITIONS and named is None)
        return Accepted if status == 200 and code in DONE[change] and has_id else Unknown
    if value.get("s") != "error" or not isinstance(message, str):
        return Unknown
    for codes, statuses, pattern, changes in ALLOWED:
        if code in codes and status in statuses and change in changes and re.search(pattern, message):
            return Refused
    return Unknown


CODES = [-50, -99, -51, -53, -352, -16, -429, -201, -96, -161, -373, 403, 429, 1101, 1102, 1103, 200, 201, 0]
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "s": st.sampled_from(["ok", "error", "OK", "", None, True, 1]),
        "code": st.sampled_from(CODES) | st.integers() | st.floats() | st.text(max_size=4) | st.booleans(),
        "message": st.sampled_from([RED, ALGO, "", " ", "Bad request", "Connection error", "no permission"])
        | st.text(max_size=20)
        | st.none(),
        "id": st.sampled_from(["26112400000001", "", " ", "1"])
        | st.integers()
        | st.none()
        | st.text(max_size=5),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
whole = st.one_of(envelopes, anything).map(lambda value: json.dumps(value).encode())
bodies = st.one_of(
    whole,
    st.binary(max_size=60),
    st.tuples(whole, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
)
statuses = st.sampled_from([200, 201, 202, 204, 400, 401, 403, 404, 429, 500, 502, 503]) | st.integers(
    100, 599
)


@settings(max_examples=400, deadline=None)
@example(PLACE, 200, GOOD)
@example(PLACE, 400, body())
@given(st.sampled_from(list(Change)), statuses, bodies)
def test_no_answer_outside_the_allowlist_proves_anything(change: Change, status: int, answer: bytes) -> None:
    outcome = outcome_of(change, status, answer, "P")
    assert isinstance(outcome, Unknown | may_be(change, status, answer))
