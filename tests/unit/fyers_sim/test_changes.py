"""The simulator over real HTTP: cancelling, modifying, exits, overlay and bracket legs."""

from __future__ import annotations

import pytest

from tests.fyers_sim import FyersSim
from tests.simulator.book import CANCELLED, PENDING, TRADED
from tests.unit.fyers_sim.client import POSITION, TICKER, Client


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
