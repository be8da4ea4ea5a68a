"""The simulator from outside: its hangs, its command line and its admin door."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fyers_sim import read_ledger
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.unit.fyers_sim.client import POSITION, order


def test_hang_at_connect_and_at_tls() -> None:
    with HangAtConnect() as dead, pytest.raises(TimeoutError):
        socket.create_connection(dead.address, timeout=0.2)
    with HangAtTls() as silent:
        with socket.create_connection(silent.address, timeout=0.2) as peer:
            peer.sendall(b"\x16\x03\x01")
            with pytest.raises(TimeoutError):
                peer.recv(1)
        assert silent.accepted == 1


Call = Callable[..., Any]


@contextmanager
def served(directory: Path) -> Iterator[tuple[subprocess.Popen[str], Call]]:
    """A simulator in a process of its own, and a way to ask it."""
    command = [sys.executable, "-m", "tests.fyers_sim", "--port", "0", "--ledger", str(directory / "l.jsonl")]
    command += ["--now", "2026-09-09T10:00:00", "--no-rate-limits"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        where = urlsplit(urls["base_url"])
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=3)

        def call(method: str, path: str, body: object = None) -> Any:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Authorization": "SIMAPP-200:t"})
            return json.loads(connection.getresponse().read())

        try:
            yield process, call
        finally:
            connection.close()
            process.terminate()


def test_the_command_line_and_the_admin_door(tmp_path: Path) -> None:
    with served(tmp_path) as (process, call):
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
        process.terminate()
        assert process.wait(5) == 0
    assert len(read_ledger(tmp_path / "l.jsonl")) == 1


def test_a_day_of_chaos_is_steered_through_the_door(tmp_path: Path) -> None:
    """Late orders, a witness by hand, a stop, a frozen and an empty book: all from another process."""
    with served(tmp_path) as (_, call):

        def hand(method: str, **args: object) -> Any:
            return call("POST", "/__sim__/state", {"call": method, "args": args})["result"]

        def ids(what: str = "orders", rows: str = "orderBook", name: str = "id") -> list[str]:
            return [row[name] for row in call("GET", f"/api/v3/{what}")[rows]]

        call("POST", "/__sim__/fault", {"name": "late", "appear_after": 20})
        late = call("POST", "/api/v3/orders/sync", order(stopLoss=15.0, takeProfit=25.0))["id"]
        witness = hand("place_by_hand", ticker="NSE:SBIN-EQ", side=1, qty=1)
        assert ids() == [witness]
        hand("advance", seconds=20)
        assert ids() == [late, witness]
        hand("freeze_book")
        stop = hand("trigger_stop", position_id=POSITION)
        assert ids() == [late, witness]
        assert ids("tradebook", "tradeBook", "orderNumber") == [witness, late]
        assert next(p for p in hand("positions") if p["id"] == POSITION)["netQty"] == 0
        hand("unfreeze_book")
        assert ids() == [late, witness, stop]
        assert [row["orderNumber"] for row in hand("trades")] == [witness, late, stop]
        call("POST", "/__sim__/fault", {"endpoint": "GET /orders", "name": "empty", "times": "sticky"})
        assert ids() == []
        assert [row["id"] for row in hand("orders")] == [late, witness, stop]
        call("POST", "/__sim__/fault", {"endpoint": "GET /orders", "name": None})
        assert ids() == [late, witness, stop]
        (line,) = call("GET", "/__sim__/ledger")["placed"]
        assert (line["order_id"], line["fault"]) == (late, "late")
