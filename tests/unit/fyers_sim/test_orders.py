"""The simulator over real HTTP: placing orders, their fills, the book and the ledger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fyers_sim import FyersSim, SimClock, read_ledger
from tests.simulator.book import CANCELLED, EXPIRED, PENDING, REJECTED, TRADED, TRANSIT
from tests.unit.fyers_sim.client import POSITION, TICKER, Client


def test_an_accepted_market_order_fills_at_the_touch_and_shows_in_every_view(
    sim: FyersSim, client: Client
) -> None:
    answer = client.place(orderTag="ABCD1234", stopLoss=15, takeProfit=25.05)

    assert answer.status == 200
    assert answer.json["s"] == "ok"
    assert answer.json["code"] == 1101
    assert re.fullmatch(r"260909\d{8}", answer.json["id"])
    (row,) = client.book()
    assert row["id"] == answer.json["id"]
    assert (row["status"], row["filledQty"], row["tradedPrice"]) == (TRADED, 65, 100.05)
    assert row["limitPrice"] == 110, "a market order is a limit at LTP + 10 %"
    assert (row["orderTag"], row["stopLoss"], row["takeProfit"]) == ("1:ABCD1234", 15, 25.05)
    assert row["orderDateTime"] == "09-Sep-2026 10:00:00"
    assert "parentId" not in row
    (position,) = client.positions()
    assert (position["id"], position["netQty"], position["netAvg"]) == (POSITION, 65, 100.05)
    assert (position["stopLoss"], position["takeProfit"]) == (15, 25.05)
    (trade,) = client.call("GET", "/api/v3/tradebook").json["tradeBook"]
    assert (trade["orderNumber"], trade["tradedQty"], trade["tradePrice"]) == (row["id"], 65, 100.05)


def test_the_ledger_is_on_disk_before_the_answer(tmp_path: Path, clock: SimClock) -> None:
    path = tmp_path / "ledger.jsonl"
    with FyersSim(clock=clock, ledger=path) as sim:
        answer = Client(sim).place(orderTag="T1")
        Client(sim).place(qty=1)
        (first, second) = read_ledger(path)
        assert (first["kind"], first["order_id"], first["answer"]) == ("order", answer.json["id"], "accepted")
        assert (first["app_id"], first["body"]["orderTag"], first["fault"]) == ("SIMAPP-200", "T1", None)
        assert (second["order_id"], second["answer"]) == (None, "refused:-50")
        assert [len(sim.ledger.orders()), len(sim.ledger.placed())] == [2, 1]
    assert b":t" not in path.read_bytes()


def test_a_new_simulator_goes_on_in_an_old_ledger(tmp_path: Path, clock: SimClock) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        with FyersSim(clock=clock, ledger=path) as sim:
            Client(sim).place()
    assert [line["n"] for line in read_ledger(path)] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbol": "NSE:NIFTY99JAN1CE"}, "The input symbol is invalid."),
        ({"symbol": None}, "The input symbol is invalid."),
        ({"symbol": ...}, "symbol: is required"),
        ({"qty": 64}, "Quantity should be multiple of min lot size."),
        ({"qty": 0}, "Quantity should be multiple of min lot size."),
        ({"qty": 1820}, "Quantity exceeds the allowable freeze limit."),
        ({"qty": "65"}, "qty: expected integer"),
        ({"qty": 65.0}, "qty: expected integer"),
        ({"qty": ...}, "qty: is required"),
        ({"type": True}, "type: expected integer"),
        ({"type": 5}, "type: must be one of"),
        ({"side": 0}, "side: must be one of"),
        ({"productType": "intraday"}, "productType: must be one of"),
        ({"productType": "CNC"}, "Product CNC not enabled on exchange NFO"),
        ({"validity": "GTC"}, "validity: must be one of"),
        ({"offlineOrder": 0}, "offlineOrder: expected boolean"),
        ({"limitPrice": 10}, "limitPrice does not match: 0"),
        ({"limitPrice": "0"}, "limitPrice: expected number"),
        ({"type": 1}, "limitPrice: Must be greater than or equal to 0.0025"),
        ({"type": 1, "limitPrice": 10.02}, "LimitPrice not a multiple of tick size 0.0500"),
        ({"type": 4, "limitPrice": 10, "stopPrice": 11}, "stopPrice: must be on the near side"),
        ({"stopLoss": 15.01}, "StopLoss not a multiple of tick size 0.0500"),
        ({"takeProfit": 25.001}, "TakeProfit not a multiple of tick size 0.0500"),
        ({"orderTag": "a-b"}, "orderTag: must be alphanumeric"),
        ({"orderTag": "A" * 21}, "orderTag: must be alphanumeric"),
        ({"orderTag": "A\n"}, "orderTag: must be alphanumeric"),
        ({"orderTag": "Untagged"}, "orderTag: must be alphanumeric"),
        ({"productType": "BO", "stopLoss": 5}, "takeProfit: Must be greater"),
        ({"productType": "BO", "takeProfit": 5}, "stopLoss: Must be greater"),
        ({"productType": "CO"}, "stopLoss: Must be greater"),
        ({"productType": "CO", "stopLoss": 5, "takeProfit": 5}, "takeProfit does not match: 0"),
        ({"productType": "BO", "stopLoss": 5, "takeProfit": 5, "orderTag": "A1"}, "orderTag is not allowed"),
    ],
)
def test_a_bad_order_is_refused_with_minus_50(
    client: Client, changes: dict[str, object], message: str
) -> None:
    answer = client.place(**changes)

    assert answer.status == 400
    assert (answer.json["s"], answer.json["code"]) == ("error", -50)
    assert message in answer.json["message"]
    assert client.book() == []


def test_an_expired_contract_and_a_body_that_is_no_json_are_refused(client: Client, clock: SimClock) -> None:
    assert client.call("POST", "/api/v3/orders/sync", b"{").json["code"] == -50
    clock.advance(30 * 86400)
    assert client.place().json["message"] == "The input symbol is invalid."


def test_a_sliced_order_answers_without_s_and_id(sim: FyersSim, client: Client) -> None:
    answer = client.place(qty=65 * 30, isSliceOrder=True).json

    assert "s" not in answer
    assert "id" not in answer
    assert [row["qty"] for row in client.book()] == [27 * 65, 3 * 65]
    assert sim.ledger.placed()[0]["order_ids"] == [part["body"]["id"] for part in answer["data"]]


def test_a_market_order_rests_when_the_touch_is_beyond_the_protection(sim: FyersSim, client: Client) -> None:
    sim.set_quote(TICKER, lp=100, bid=80, ask=120)
    order_id = client.place().json["id"]
    assert client.book()[0]["status"] == PENDING
    assert client.place(validity="IOC").json["s"] == "ok"
    assert client.book()[1]["status"] == CANCELLED

    sim.set_quote(TICKER, ask=105)
    sim.match(TICKER)

    assert (client.book(f"?id={order_id}")[0]["status"], client.book()[0]["tradedPrice"]) == (TRADED, 105)


@pytest.mark.parametrize(
    ("lp", "side", "limit"),
    [
        ("8", 1, 9.5),
        ("16", 1, 18.4),
        ("16", -1, 13.6),
        ("100.05", 1, 110.05),
        ("100.05", -1, 90),
        ("0.5", -1, 0.05),
    ],
)
def test_market_price_protection(sim: FyersSim, client: Client, lp: str, side: int, limit: float) -> None:
    sim.fill_mode = "rest"
    sim.set_quote(TICKER, lp=lp)
    client.place(side=side)
    assert client.book()[0]["limitPrice"] == limit


def test_fill_modes_and_fills_by_hand(sim: FyersSim, client: Client) -> None:
    sim.fill_mode = "partial:65"
    order_id = client.place(qty=130).json["id"]
    row = client.book()[0]
    assert (row["status"], row["filledQty"], row["remainingQuantity"]) == (PENDING, 65, 65)
    sim.fill(order_id, price="101.55")
    assert client.book()[0]["tradedPrice"] == 100.8

    sim.fill_mode = "transit"
    client.place()
    assert client.book()[1]["status"] == TRANSIT

    sim.fill_mode = "reject_async"
    assert client.place().json["code"] == 1101
    assert client.book()[2]["status"] == REJECTED
    assert client.book()[2]["message"].startswith("RED:Margin Shortfall")

    sim.fill_mode = "rest"
    rested = client.place().json["id"]
    sim.reject(rested, "RED:no")
    assert client.book()[3]["message"] == "RED:no"
    with pytest.raises(ValueError, match="expected a working order"):
        sim.fill(rested)
    sim.expire(client.place().json["id"])
    assert client.book()[4]["status"] == EXPIRED
    with pytest.raises(ValueError, match="partial:N"):
        sim.fill_mode = "maybe"


def test_look_up_by_id_and_by_tag(client: Client) -> None:
    order_id = client.place(orderTag="ABC").json["id"]
    client.place()
    assert [row["id"] for row in client.book("?order_tag=1:ABC")] == [order_id]
    assert [row["orderTag"] for row in client.book()] == ["1:ABC", "2:Untagged"]
    assert client.book("?id=99") == []
    assert len(client.call("GET", "/api/v3/tradebook?order_tag=1:ABC").json["tradeBook"]) == 1
