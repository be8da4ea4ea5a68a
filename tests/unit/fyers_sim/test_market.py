"""The simulator over real HTTP: trades by hand, days, late orders, quotes and the served masters."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fyers_sim import FyersSim, SimClock, nifty_ticker, sample_masters
from tests.simulator.book import REJECTED, TRADED
from tests.simulator.masters import masters_of_directory
from tests.unit.fyers_sim.client import DAY, POSITION, TICKER, Client

SHARED = Path(__file__).parents[4] / "shared" / "data" / "symbol_master"


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
