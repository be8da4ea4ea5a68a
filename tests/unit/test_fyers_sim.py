"""The simulator over real HTTP: every test goes through a socket, as the service does."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fyers_sim import FyersSim, SimClock, nifty_ticker, read_ledger, sample_masters
from tests.simulator.book import CANCELLED, EXPIRED, PENDING, REJECTED, TRADED, TRANSIT
from tests.simulator.faults import NAMES, make_fault
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.simulator.masters import masters_of_directory

DAY = date(2026, 9, 9)
OPEN = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # 10:00 IST on a Wednesday
TICKER = nifty_ticker(DAY)
POSITION = f"{TICKER}-INTRADAY"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "symbol_master"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One keep-alive connection, as one worker of the service has."""

    sim: FyersSim
    token: str = "SIMAPP-200:t"
    timeout_s: float = 3.0
    connection: http.client.HTTPConnection = field(init=False)
    opened: ClassVar[list[http.client.HTTPConnection]] = []

    def __post_init__(self) -> None:
        host, port = self.sim.server.address
        self.connection = http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        self.opened.append(self.connection)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {
            "Authorization": self.token,
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        self.connection.request(method, path, raw, sent)
        response = self.connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())

    def place(self, **changes: object) -> Answer:
        return self.call("POST", "/api/v3/orders/sync", order(**changes))

    def book(self, query: str = "") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.call("GET", f"/api/v3/orders{query}").json["orderBook"]
        return rows

    def positions(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.call("GET", "/api/v3/positions").json["netPositions"]
        return rows


def order(**changes: object) -> dict[str, object]:
    """A market order that is accepted as it stands; a change to `...` leaves the field out."""
    body: dict[str, object] = {
        "symbol": TICKER,
        "qty": 65,
        "type": 2,
        "side": 1,
        "productType": "INTRADAY",
        "limitPrice": 0,
        "stopPrice": 0,
        "disclosedQty": 0,
        "validity": "DAY",
        "offlineOrder": False,
        **changes,
    }
    return {name: value for name, value in body.items() if value is not ...}


@pytest.fixture
def clock() -> SimClock:
    return SimClock(OPEN, running=False)


@pytest.fixture
def sim(clock: SimClock) -> Iterator[FyersSim]:
    with FyersSim(clock=clock, rate_limits=False) as running:
        yield running


@pytest.fixture
def client(sim: FyersSim) -> Client:
    return Client(sim)


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


# --- placing and the book -----------------------------------------------------------------------------------


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


# --- cancel, modify, exit, legs -----------------------------------------------------------------------------


def test_cancel_by_body_and_by_path(sim: FyersSim, client: Client) -> None:
    sim.fill_mode = "rest"
    first, second = (client.place().json["id"] for _ in range(2))
    assert client.call("DELETE", "/api/v3/orders/sync", {"id": first}).json["code"] == 1103
    assert client.call("DELETE", f"/api/v3/orders/{second}/sync").json["id"] == second
    assert [row["status"] for row in client.book()] == [CANCELLED, CANCELLED]
    assert client.call("DELETE", "/api/v3/orders/sync", {"id": first}).json["code"] == -161
    assert client.call("DELETE", "/api/v3/orders/sync", {"id": "1"}).json["code"] == -51
    assert client.call("DELETE", "/api/v3/orders/sync", {}).json["code"] == -51
    sim.fill_mode = "instant"
    filled = client.place().json["id"]
    assert client.call("DELETE", f"/api/v3/orders/{filled}/sync").json["code"] == -162
    assert [line["target"] for line in sim.ledger.ops("cancel") if "target" in line] == [second, filled]


def test_modify_needs_the_full_body(sim: FyersSim, client: Client) -> None:
    sim.fill_mode = "rest"
    order_id = client.place(type=1, limitPrice=90).json["id"]
    partial = client.call("PATCH", "/api/v3/orders/sync", {"id": order_id, "limitPrice": 91})
    assert partial.json["message"] == "limitPrice does not match: 0"
    full = {"id": order_id, "type": 1, "limitPrice": 91, "stopPrice": 0, "qty": 130}
    assert client.call("PATCH", "/api/v3/orders/sync", full).json["code"] == 1101
    assert (client.book()[0]["limitPrice"], client.book()[0]["qty"]) == (91, 130)
    sim.fill_mode = "instant"
    client.call("PATCH", "/api/v3/orders/sync", {**full, "type": 2, "limitPrice": 0})
    assert client.book()[0]["status"] == TRADED
    assert client.call("PATCH", "/api/v3/orders/sync", full).json["code"] == -162
    assert len(sim.ledger.ops("modify")) == 4


def test_exit_closes_what_is_meant_and_the_row_stays(sim: FyersSim, client: Client) -> None:
    client.place()
    client.place(productType="MARGIN")
    assert client.call("DELETE", "/api/v3/positions", {"id": POSITION}).json == {
        "s": "ok",
        "code": 200,
        "message": "The position is closed.",
    }
    rows = {row["id"]: row["netQty"] for row in client.positions()}
    assert rows == {POSITION: 0, f"{TICKER}-MARGIN": 65}
    assert client.call("DELETE", "/api/v3/positions", {"id": POSITION}).json["code"] == -352
    sim.fill_mode = "rest"
    assert client.call("DELETE", "/api/v3/positions", {"exit_all": 1}).json["code"] == 201
    assert client.call("DELETE", "/api/v3/positions", {"pending_orders_cancel": 1}).json["code"] == 200
    assert client.book()[-1]["status"] == CANCELLED
    sim.fill_mode = "instant"
    chosen = {"segment": [11], "side": [1], "productType": ["MARGIN"]}
    assert client.call("DELETE", "/api/v3/positions", chosen).json["code"] == 200
    assert client.call("DELETE", "/api/v3/positions", {}).json["code"] == -352
    assert client.call("DELETE", "/api/v3/positions", {"id": 5}).json["code"] == -50
    assert client.call("DELETE", "/api/v3/positions", {"side": 1}).json["code"] == -50
    assert len(sim.ledger.ops("exit_position")) == 8


def test_overlay_legs_change_go_and_trigger(sim: FyersSim, client: Client) -> None:
    client.place(stopLoss=15, takeProfit=25)
    path = "/api/v3/positions"
    assert client.call("PATCH", path, {"positionId": POSITION, "takeProfit": 0}).json["s"] == "ok"
    assert (client.positions()[0]["stopLoss"], client.positions()[0]["takeProfit"]) == (15, 0)
    assert client.call("PATCH", path, {"positionId": POSITION, "stopLoss": None}).json["s"] == "ok"
    assert client.positions()[0]["stopLoss"] == 0
    assert client.call("PATCH", path, {"id": POSITION, "stopLoss": 10.01}).json["code"] == -50
    assert client.call("PATCH", path, {"positionId": "x", "stopLoss": 10}).json["code"] == -53
    client.call("PATCH", path, {"positionId": POSITION, "stopLoss": 10, "takeProfit": 20})

    sim.trigger_stop(POSITION)

    position = client.positions()[0]
    assert (position["netQty"], position["stopLoss"], position["realized_profit"]) == (0, 0, -650)
    assert (client.book()[1]["orderTag"], client.book()[1]["tradedPrice"]) == ("2:Untagged", 90.05)
    with pytest.raises(ValueError, match="expected a stop leg"):
        sim.trigger_stop(POSITION)


def test_the_overlay_may_be_ignored_and_brackets_refused(sim: FyersSim, client: Client) -> None:
    sim.overlay_mode = "ignored"
    sim.bracket_mode = "refused"
    client.place(stopLoss=15)
    assert client.positions()[0]["stopLoss"] == 0
    assert client.place(productType="CO", stopLoss=15).json["code"] == -50


def test_bracket_legs_are_children_and_one_ends_the_other(sim: FyersSim, client: Client) -> None:
    order_id = client.place(productType="BO", stopLoss=15, takeProfit=25).json["id"]
    parent, stop, target = client.book()
    assert [row["id"][14:] for row in (parent, stop, target)] == ["-BO-1", "-BO-2", "-BO-3"]
    assert (stop["parentId"], stop["status"], stop["side"]) == (order_id, PENDING, -1)
    assert (stop["type"], stop["stopPrice"], target["limitPrice"]) == (4, 85.05, 125.05)
    sim.trigger_stop(f"{TICKER}-BO")
    assert [row["status"] for row in client.book()] == [TRADED, TRADED, CANCELLED]
    assert client.positions()[0]["netQty"] == 0


def test_a_cover_order_exits_through_its_leg_or_by_position(client: Client) -> None:
    client.place(productType="CO", stopLoss=15, side=-1)
    leg = client.book()[1]
    assert (leg["id"][14:], leg["side"], leg["stopPrice"]) == ("-CO-2", 1, 114.95)
    assert client.call("DELETE", "/api/v3/orders/sync", {"id": leg["id"]}).json["code"] == 1103
    assert client.positions()[0]["netQty"] == 0
    client.place(productType="CO", stopLoss=15)
    assert client.call("DELETE", "/api/v3/positions", {"id": f"{TICKER}-CO"}).json["code"] == 200
    assert client.positions()[0]["netQty"] == 0
    assert client.book()[3]["status"] == CANCELLED


# --- the hand of the trader, days, late orders --------------------------------------------------------------


def test_trades_by_hand_move_positions_and_not_the_ledger(sim: FyersSim, client: Client) -> None:
    sim.place_by_hand(TICKER, 1, 130)
    row = client.book()[0]
    assert (row["source"], row["orderTag"], row["status"]) == ("W", "2:Untagged", TRADED)
    sim.close_by_hand(POSITION, 65)
    assert client.positions()[0]["netQty"] == 65
    assert sim.ledger.orders() == []
    with pytest.raises(KeyError):
        sim.place_by_hand("NSE:NOPE", 1, 65)


def test_the_next_day_has_an_empty_book_and_carried_positions(
    sim: FyersSim, client: Client, clock: SimClock
) -> None:
    client.place()
    client.place(productType="MARGIN")
    sim.carry_forward(nifty_ticker(DAY, kind="PE"), -65, 50)
    clock.advance(86400)
    assert client.book() == []
    rows = {row["id"]: (row["netQty"], row["cfBuyQty"], row["dayBuyQty"]) for row in client.positions()}
    assert rows == {f"{TICKER}-MARGIN": (65, 65, 0), f"{nifty_ticker(DAY, kind='PE')}-MARGIN": (-65, 0, 0)}


def test_a_late_order_appears_by_the_clock_with_the_time_it_was_received(
    sim: FyersSim, client: Client, clock: SimClock
) -> None:
    sim.faults.next_order("late_no_ack", appear_after=20)
    answer = client.place()
    assert (answer.json["s"], answer.json["code"], "id" in answer.json) == ("ok", 201, False)
    assert (client.book(), client.positions()) == ([], [])
    assert len(sim.ledger.placed()) == 1
    clock.advance(20)
    assert (client.book()[0]["status"], client.book()[0]["orderDateTime"]) == (TRADED, "09-Sep-2026 10:00:00")


def test_a_frozen_book_hides_what_happens(sim: FyersSim, client: Client) -> None:
    client.place()
    sim.freeze_book()
    client.place()
    assert len(client.book()) == 1
    assert client.positions()[0]["netQty"] == 130
    sim.unfreeze_book()
    assert len(client.book()) == 2


def test_an_order_while_the_market_is_closed(sim: FyersSim, client: Client, clock: SimClock) -> None:
    sim.enforce_hours = True
    clock.advance(6 * 3600)
    assert client.place().json["code"] == 1101
    assert client.book()[0]["status"] == REJECTED
    assert {row["status"] for row in client.call("GET", "/data/marketStatus").json["marketStatus"]} == {
        "CLOSED"
    }
    sim.market_open = True
    assert client.place().json["code"] == 1101
    assert client.book()[1]["status"] == TRADED


# --- market data and masters --------------------------------------------------------------------------------


def test_quotes_and_depth(sim: FyersSim, client: Client) -> None:
    sim.set_quote(TICKER, lp=52.5)
    put = nifty_ticker(DAY, kind="PE")
    sim.remove_quote(put)
    answer = client.call("GET", f"/data/quotes?symbols={TICKER},{put},NSE:NOPE,NSE:SBIN-EQ").json
    assert [row["s"] for row in answer["d"]] == ["ok", "error", "error", "ok"]
    assert "lp" not in answer["d"][1]["v"]
    assert [answer["d"][0]["v"][name] for name in ("lp", "bid", "ask")] == [52.5, 52.45, 52.55]
    sim.set_quote(TICKER, omit=["lp"])
    assert "lp" not in client.call("GET", f"/data/quotes?symbols={TICKER}").json["d"][0]["v"]
    assert client.call("GET", "/data/quotes?symbols=" + ",".join(["NSE:X"] * 51)).status == 400
    depth = client.call("GET", f"/data/depth?symbol={TICKER}&ohlcv_flag=1").json["d"][TICKER]
    assert (depth["ltp"], depth["bids"][0]["price"], len(depth["ask"])) == (52.5, 52.45, 5)
    assert client.call("GET", "/data/depth?symbol=NSE:NOPE").json["code"] == -300


def test_masters_are_served_with_conditional_get(sim: FyersSim, client: Client, clock: SimClock) -> None:
    first = client.call("GET", "/master/NSE_FO.csv")
    assert (first.status, first.body) == (200, sample_masters(DAY)["NSE_FO.csv"])
    assert client.call("GET", "/master/NSE_FO.csv", If_None_Match=first.headers["ETag"]).status == 304
    since = first.headers["Last-Modified"]
    assert client.call("GET", "/master/NSE_FO.csv", If_Modified_Since=since).status == 304
    clock.advance(60)
    sim.masters["NSE_FO.csv"] = b""
    assert client.call("GET", "/master/NSE_FO.csv", If_Modified_Since=since).body == b""
    assert client.place().json["message"] == "The input symbol is invalid."
    sim.masters = {}
    assert client.call("GET", "/master/NSE_CM.csv").status == 404
    sim.faults.set("GET /master/*", "html_503")
    assert client.call("GET", "/master/NSE_FO.csv").status == 503


def test_a_truncated_master(sim: FyersSim, client: Client) -> None:
    whole = len(sim.masters["NSE_FO.csv"])
    sim.faults.next("GET /master/NSE_FO.csv", "truncated")
    assert len(client.call("GET", "/master/NSE_FO.csv").body) == whole // 2
    sim.faults.next("GET /master/NSE_FO.csv", "short_body")
    with pytest.raises(http.client.IncompleteRead):
        client.call("GET", "/master/NSE_FO.csv")


def test_the_freeze_quantity_of_the_json_twin_counts(sim: FyersSim, client: Client) -> None:
    sim.masters["NSE_FO_sym_master.json"] = json.dumps({TICKER: {"qtyFreeze": "100"}}).encode()
    assert client.place(qty=130).json["message"] == "Quantity exceeds the allowable freeze limit."


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real symbol-master files is not here")
def test_real_master_files_are_read() -> None:
    clock = SimClock(datetime(2025, 11, 11, 5, 0, tzinfo=UTC))
    with FyersSim(clock=clock, masters=masters_of_directory(SHARED), fsync=False) as sim:
        answer = Client(sim).place(symbol="BSE:SENSEX25N1384000CE", qty=20)
        assert answer.json["code"] == 1101
        assert len(sim.masters.tickers()) > 15000


# --- authentication, permission, limits ---------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "t", "SIMAPP-200:wrong", "Bearer t", "SIMAPP-200:"])
def test_a_bad_token_is_401(sim: FyersSim, header: str) -> None:
    client = Client(sim, token=header)
    assert (client.place().status, client.place().json["code"]) == (401, -16)
    assert client.call("GET", "/api/v3/orders").json["message"] == "Could not authenticate the user"
    assert client.call("GET", f"/data/quotes?symbols={TICKER}").json["code"] == -15
    assert [line["answer"] for line in sim.ledger.orders()] == ["refused:-16"] * 2


def test_the_login_is_single_use_and_its_token_ends_at_six(
    sim: FyersSim, client: Client, clock: SimClock
) -> None:
    app_hash = hashlib.sha256(b"SIMAPP-200:simsecret").hexdigest()
    query = "client_id=SIMAPP-200&redirect_uri=http://localhost/cb&response_type=code&state=xyz"
    redirect = client.call("GET", f"/api/v3/generate-authcode?{query}")
    given = parse_qs(urlsplit(redirect.headers["Location"]).query)
    assert (redirect.status, given["state"]) == (302, ["xyz"])
    body = {"grant_type": "authorization_code", "appIdHash": app_hash, "code": given["auth_code"][0]}
    assert client.call("POST", "/api/v3/validate-authcode", {**body, "appIdHash": "x"}).json["code"] == -371
    tokens = client.call("POST", "/api/v3/validate-authcode", body).json
    assert tokens["s"] == "ok"
    assert client.call("POST", "/api/v3/validate-authcode", body).json["code"] == -437

    mine = Client(sim, token=f"SIMAPP-200:{tokens['access_token']}")
    assert mine.call("GET", "/api/v3/profile").json["data"]["fy_id"] == "XS00001"
    assert Client(sim, token=f"OTHER-200:{tokens['access_token']}").call("GET", "/api/v3/funds").status == 401
    clock.advance(20 * 3600)
    assert mine.call("GET", "/api/v3/funds").status == 401

    refresh = {"appIdHash": app_hash, "refresh_token": tokens["refresh_token"], "pin": "1234"}
    assert client.call("POST", "/api/v3/validate-refresh-token", {**refresh, "pin": "0"}).json["code"] == -501
    fresh = client.call("POST", "/api/v3/validate-refresh-token", refresh).json
    assert "refresh_token" not in fresh
    mine.token = f"SIMAPP-200:{fresh['access_token']}"
    assert mine.call("GET", "/api/v3/funds").json["fund_limit"][9]["title"] == "Available Balance"
    assert mine.call("POST", "/api/v3/logout").json["s"] == "ok"
    assert mine.call("POST", "/api/v3/logout").json["message"] == "Token is Invalid or Expired"


def test_tokens_may_end_in_mid_session(sim: FyersSim, client: Client) -> None:
    sim.faults.next("GET /orders", "auth_401")
    assert client.call("GET", "/api/v3/orders").status == 401
    assert client.call("GET", "/api/v3/orders").status == 200
    sim.expire_tokens()
    assert client.place().json["code"] == -16


def test_an_old_app_may_read_but_not_order(sim: FyersSim, client: Client) -> None:
    old = Client(sim, token="OLDAPP-100:t")
    assert old.book() == []
    answer = old.place()
    assert (answer.status, answer.json["code"]) == (400, -50)
    assert answer.json["message"].endswith("Algo orders are not allowed from this app OLDAPP-100")
    sim.order_permission = False
    assert client.place().json["code"] == -50
    assert client.book() == []


def test_rate_limits_per_second_minute_and_day(clock: SimClock) -> None:
    with FyersSim(clock=clock, fsync=False) as sim:
        client = Client(sim)
        codes = [client.place().status for _ in range(11)]
        assert codes == [200] * 10 + [429]
        clock.advance(0.75)
        refused = client.place()
        assert (refused.json["code"], refused.headers["Retry-After"]) == (-429, "1")
        assert refused.headers["X-Retry-After-Ms"] == "250"
        assert client.call("GET", "/api/v3/funds").status == 429
        sim.limits.per_minute = 12
        clock.advance(1)
        assert [client.call("GET", "/api/v3/funds").status for _ in range(3)] == [200, 200, 429]
        for _ in range(3):
            clock.advance(61)
            assert [client.call("GET", "/api/v3/funds").status for _ in range(10)] == [200] * 10
            clock.advance(2)
            assert [client.call("GET", "/api/v3/funds").status for _ in range(3)] == [200, 200, 429]
        clock.advance(3600)
        assert client.call("GET", "/api/v3/funds").status == 429, "blocked until midnight"
        clock.advance(86400)
        assert client.call("GET", "/api/v3/funds").status == 200


def test_paths_that_the_firewall_blocks_and_paths_that_are_not_there(client: Client) -> None:
    assert b"Attention Required" in client.call("POST", "/api/v3/orders", order()).body
    assert client.call("POST", "/data/quotes", {}).status == 403
    assert client.call("GET", "/api/v3/holdings").status == 404


# --- faults -------------------------------------------------------------------------------------------------

_ANSWERED = {
    "no_ack": 200,
    "html_200": 200,
    "cloudflare_403": 403,
    "html_502": 502,
    "html_503": 503,
    "http_500": 500,
    "truncated": 200,
    "custom": 418,
}
_LOST = {
    "hang": (TimeoutError, http.client.RemoteDisconnected),
    "reset": (ConnectionResetError,),
    "disconnect": (http.client.RemoteDisconnected,),
    "short_body": (http.client.IncompleteRead,),
}


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize("name", sorted(_ANSWERED))
def test_a_spoilt_answer_with_and_without_an_order(
    sim: FyersSim, client: Client, name: str, created: bool
) -> None:
    sim.faults.next_order(f"{name}_created" if created else name, status=418, body="teapot")
    answer = client.place()

    assert answer.status == _ANSWERED[name]
    if name not in ("no_ack", "http_500"):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid|delimiter"):
            json.loads(answer.body)
    (line,) = sim.ledger.orders()
    assert (line["order_id"] is not None) == created
    assert len(client.book()) == created
    assert (line["fault"], line["answer"]) == (f"{name}_created" if created else name, name)
    assert client.place().json["code"] == 1101, "one-shot"


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize("name", sorted(_LOST))
def test_a_lost_answer_with_and_without_an_order(sim: FyersSim, name: str, created: bool) -> None:
    sim.faults.next_order(f"{name}_created" if created else name, seconds=5)
    client = Client(sim, timeout_s=0.15 if name == "hang" else 3)
    with pytest.raises(_LOST[name]):
        client.place()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.orders()) == 1)
    assert [line["order_id"] is not None for line in sim.ledger.orders()] == [created]
    assert len(Client(sim).book()) == created


def test_a_reset_before_the_body_was_read(sim: FyersSim, client: Client) -> None:
    sim.faults.next_order("reset_unread")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.place()
    assert [line["answer"] for line in sim.ledger.orders()] == ["reset_unread"]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("rate_429", 429, -429),
        ("auth_401", 401, -16),
        ("algo_restricted", 400, -50),
        ("bad_symbol", 400, -50),
        ("rms_reject", 400, -99),
    ],
)
def test_refusals_as_faults(sim: FyersSim, client: Client, name: str, status: int, code: int) -> None:
    sim.faults.next_order(name, seconds=3)
    answer = client.place()
    assert (answer.status, answer.json["code"], answer.json["s"]) == (status, code, "error")
    assert (answer.headers.get("Retry-After") == "3") == (status == 429)
    assert sim.ledger.placed() == []


def test_a_rejection_that_carries_an_id(sim: FyersSim, client: Client) -> None:
    sim.faults.next_order("rms_reject_with_id")
    sim.fill_mode = "rest"
    answer = client.place().json
    assert answer["code"] == -99
    assert (client.book()[0]["id"], client.book()[0]["status"]) == (answer["id"], REJECTED)


def test_slow_acts_after_the_wait_and_slow_created_before(sim: FyersSim) -> None:
    sim.faults.next_order("slow", seconds=30)
    with pytest.raises(TimeoutError):
        Client(sim, timeout_s=0.1).place()
    assert sim.ledger.orders() == []
    sim.release_hangs()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 1), "created though the client had gone"

    sim.faults.next_order("slow_created", seconds=30)
    with pytest.raises(TimeoutError):
        Client(sim, timeout_s=0.1).place()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 2)


def test_dripping_headers_and_body_arrive_whole(sim: FyersSim, client: Client) -> None:
    for name in ("drip_body", "drip_headers"):
        sim.faults.next_order(name, seconds=0.001)
        began = time.monotonic()
        assert client.place().json["code"] == 1101
        assert time.monotonic() - began > 0.08, "one byte a millisecond"


def test_a_kept_alive_connection_closed_without_a_word(sim: FyersSim, client: Client) -> None:
    sim.faults.next("GET /orders", "close_after")
    answer = client.call("GET", "/api/v3/orders")
    assert "Connection" not in answer.headers
    assert isinstance(client.connection.sock, socket.socket)
    assert client.connection.sock.recv(1) == b""
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        client.place()
    assert sim.ledger.orders() == []


def test_one_connection_carries_many_requests(sim: FyersSim, client: Client) -> None:
    for _ in range(20):
        client.call("GET", "/api/v3/funds")
    chunked = iter([b'{"symbol":', b'"NSE:NOPE"}'])
    client.connection.request("POST", "/api/v3/orders/sync", chunked, {"Authorization": "SIMAPP-200:t"})
    assert json.loads(client.connection.getresponse().read())["message"] == "The input symbol is invalid."
    assert sim.server.accepted == 1
    assert sim.ledger.counts["GET /funds"] == 20
    client.call("GET", "/api/v3/funds", Connection="close")
    client.call("GET", "/api/v3/funds")
    assert sim.server.accepted == 2


def test_faults_on_reads_and_their_order(sim: FyersSim, client: Client) -> None:
    client.place()
    sim.faults.next("GET /orders", "empty")
    assert client.book() == []
    sim.faults.set("GET /positions", "html_503")
    sim.faults.next("GET /positions", "html_200")
    assert [client.call("GET", "/api/v3/positions").status for _ in range(3)] == [200, 503, 503]
    sim.faults.clear("GET /positions")
    assert len(client.positions()) == 1
    sim.faults.set("*", "http_500")
    assert client.call("GET", "/data/marketStatus").status == 500
    sim.faults.clear()
    with pytest.raises(ValueError, match="expected one of"):
        sim.faults.next_order("gremlins")


def test_faults_on_cancel_and_exit_leave_their_trace(sim: FyersSim, client: Client) -> None:
    sim.fill_mode = "rest"
    order_id = client.place().json["id"]
    sim.faults.next("DELETE /orders/sync", "html_502")
    assert client.call("DELETE", f"/api/v3/orders/{order_id}/sync").status == 502
    assert client.book()[0]["status"] == PENDING
    sim.faults.next("DELETE /orders/sync", "html_502_created")
    assert client.call("DELETE", f"/api/v3/orders/{order_id}/sync").status == 502
    assert client.book()[0]["status"] == CANCELLED
    assert [line["fault"] for line in sim.ledger.ops("cancel")] == ["html_502", "html_502_created"]


def test_every_fault_name_answers_or_hangs_up(sim: FyersSim) -> None:
    for name in sorted(NAMES):
        sim.faults.queue("POST /orders/sync", make_fault(name, seconds=0.001))
        with contextlib.suppress(OSError, http.client.HTTPException):
            Client(sim, timeout_s=2).place()
    assert [line["fault"] for line in sim.ledger.orders()] == sorted(NAMES)
    created = {line["fault"] for line in sim.ledger.placed()}
    assert created == {name for name in NAMES if make_fault(name).carries_out}


def test_closing_ends_a_hang_at_once(clock: SimClock) -> None:
    sim = FyersSim(clock=clock)
    sim.faults.next_order("hang_created", seconds=60)
    ended: list[BaseException] = []

    def post() -> None:
        try:
            Client(sim, timeout_s=30).place()
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 1)
    sim.close()
    thread.join(2)
    assert len(ended) == 1
    assert len(sim.ledger.placed()) == 1


def test_many_clients_at_once_lose_and_double_nothing(sim: FyersSim) -> None:
    ids: list[str] = []

    def post() -> None:
        client = Client(sim)
        ids.extend(client.place().json["id"] for _ in range(10))
        client.connection.close()

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 80
    assert sorted(line["order_id"] for line in sim.ledger.placed()) == sorted(ids)
    assert sim.positions()[0]["netQty"] == 80 * 65


# --- hangs, the admin door, the command line ----------------------------------------------------------------


def test_hang_at_connect_and_at_tls() -> None:
    with HangAtConnect() as dead, pytest.raises(TimeoutError):
        socket.create_connection(dead.address, timeout=0.2)
    with HangAtTls() as silent:
        with socket.create_connection(silent.address, timeout=0.2) as peer:
            peer.sendall(b"\x16\x03\x01")
            with pytest.raises(TimeoutError):
                peer.recv(1)
        assert silent.accepted == 1


def test_the_command_line_and_the_admin_door(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fyers_sim", "--port", "0", "--ledger", str(tmp_path / "l.jsonl")]
    command += ["--now", "2026-09-09T10:00:00", "--no-rate-limits"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        where = urlsplit(urls["base_url"])
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=3)

        def call(method: str, path: str, body: object = None) -> Any:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Authorization": "SIMAPP-200:t"})
            return json.loads(connection.getresponse().read())

        call(
            "POST", "/__sim__/fault", {"endpoint": "POST /orders/sync", "name": "no_ack_created", "times": 2}
        )
        call("POST", "/__sim__/state", {"set": {"fill_mode": "rest"}})
        assert call("POST", "/api/v3/orders/sync", order())["code"] == 201
        order_id = call("GET", "/__sim__/ledger")["placed"][0]["order_id"]
        call("POST", "/__sim__/state", {"call": "fill", "args": {"order_id": order_id, "price": 99.5}})
        state = call("GET", "/__sim__/state")
        assert state["positions"][0]["netAvg"] == 99.5
        assert state["faults"] == {"POST /orders/sync": ["no_ack_created"]}
        assert call("POST", "/__sim__/fault", {"name": None})["faults"] == {}
        call("POST", "/__sim__/state", {"call": "advance", "args": {"seconds": 86400}})
        assert call("GET", "/api/v3/orders")["orderBook"] == []
        assert "expected one of" in call("POST", "/__sim__/state", {"call": "close"})["error"]
        assert "expected one of" in call("POST", "/__sim__/fault", {"name": "x"})["error"]
        connection.close()
        process.terminate()
        assert process.wait(5) == 0
    assert len(read_ledger(tmp_path / "l.jsonl")) == 1
