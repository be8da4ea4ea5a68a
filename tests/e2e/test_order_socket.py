"""The order websocket in a running service: a fill is there long before the timer, and nothing depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.service import Service
from tests.fyers_sim import FyersSim
from tests.leak_watch import GIVEN_TOKEN
from tests.simulator.order_socket import OrderSocketSim

pytestmark = [pytest.mark.slow, pytest.mark.alone]
TIMER_S = 60
WITHIN_S = 20


def comes(is_so: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        if is_so():
            return True
        time.sleep(0.05)
    return False


def env_of(sim: FyersSim, socket: OrderSocketSim, **changes: str) -> dict[str, str]:
    return {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "WEBHOOK_MAX_QTY": "1",
        "FYERS_ORDER_SOCKET_URL": socket.url,
        **changes,
    }


def test_a_fill_is_recorded_long_before_the_timer(sim: FyersSim, tmp_path: Path) -> None:
    sim.fill_mode = "rest"
    env = {"RECONCILE_INTERVAL_SECONDS": str(TIMER_S)}
    with OrderSocketSim(sim) as socket, Service(tmp_path, env_of(sim, socket, **env)) as service:
        assert socket.wait(lambda seen: seen["subscribed"] == 1, WITHIN_S)
        order = service.alert(strikeprice=24500, lots=1).body
        sim.fill(order["broker_order_id"])
        began = time.monotonic()
        assert comes(lambda: service.get(f"/api/v1/orders/{order['order_id']}").body["state"] == "FILLED")
        assert time.monotonic() - began < TIMER_S / 5
        assert service.get("/readyz").body["checks"]["order_socket"] == "ok"
        page = service.request("GET", "/metrics", headers={"Authorization": f"Bearer {service.admin}"}).body
        assert b"order_feed_connected 1.0" in page
        assert b'order_feed_events_total{event="hint"}' in page
        assert [h["authorization"] for h in socket.headers] == [f"X-200:{GIVEN_TOKEN}"]
        stopping = time.monotonic()
        service.stop()
        assert time.monotonic() - stopping < 8
        assert GIVEN_TOKEN not in service.log


@pytest.mark.parametrize("fault", ["refuse", "hang", "flood", "rubbish"])
def test_with_the_socket_in_trouble_alerts_and_polling_go_on(
    fault: str, sim: FyersSim, tmp_path: Path
) -> None:
    sim.fill_mode = "rest"
    with OrderSocketSim(sim) as socket:
        socket.fault = fault
        with Service(tmp_path, env_of(sim, socket, RECONCILE_INTERVAL_SECONDS="1")) as service:
            assert socket.wait(lambda seen: seen["connections"] >= 1, WITHIN_S)
            began = time.monotonic()
            order = service.alert(strikeprice=24500, lots=1)
            assert (order.status, order.body["status"]) == (200, "accepted")
            assert time.monotonic() - began < 2.2
            sim.fill(order.body["broker_order_id"])
            found = f"/api/v1/orders/{order.body['order_id']}"
            assert comes(lambda: service.get(found).body["state"] == "FILLED")
            stopping = time.monotonic()
            service.stop()
            assert time.monotonic() - stopping < 9
