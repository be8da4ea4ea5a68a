"""The simulator from outside: its hangs, its command line and its admin door."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fyers_sim import read_ledger
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.unit.fyers_sim.client import order


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
