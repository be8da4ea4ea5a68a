"""The SDK's methods on our transport: the requests that arrive, and the traps that are closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from app.brokers.fyers import sdk
from app.brokers.fyers.client import Exchange, FyersClient
from app.domain.deadline import Deadline
from tests.unit.raw_peer import Peer

AUTH = "APP-100:token"


@contextmanager
def exchange_with(peer: Peer) -> Iterator[Exchange]:
    client = FyersClient(f"{peer.url}/api/v3/", f"{peer.url}/data", connect_timeout_s=2, read_timeout_s=2)
    with client.exchange(Deadline(monotonic() + 2), AUTH) as exchange:
        yield exchange
    client.close()


ORDERS, POSITIONS = "/api/v3/orders/sync", "/api/v3/positions"
SDK_CALLS: list[tuple[str, str, Any, str]] = [
    ("place_order", f"POST {ORDERS}", {"symbol": "NSE:X", "qty": 65}, ""),
    ("modify_order", f"PATCH {ORDERS}", {"id": "1", "qty": 65}, ""),
    ("cancel_order", f"DELETE {ORDERS}", {"id": "1"}, ""),
    ("exit_positions", f"DELETE {POSITIONS}", {"id": "NSE:X-INTRADAY"}, ""),
    ("attach_position_legs", f"PATCH {POSITIONS}", {"id": "NSE:X-INTRADAY"}, ""),
    ("positions", f"GET {POSITIONS}", None, ""),
    ("orderbook", "GET /api/v3/orders", None, ""),
    ("orderbook", "GET /api/v3/orders", {"id": "1"}, "?id=1"),
    ("tradebook", "GET /api/v3/tradebook", None, ""),
    ("funds", "GET /api/v3/funds", None, ""),
    ("get_profile", "GET /api/v3/profile", None, ""),
    ("quotes", "GET /data/quotes", {"symbols": "NSE:A,NSE:B"}, "?symbols=NSE%3AA%2CNSE%3AB"),
    ("depth", "GET /data/depth", {"symbol": "NSE:A", "ohlcv_flag": 1}, "?symbol=NSE%3AA&ohlcv_flag=1"),
    ("market_status", "GET /data/marketStatus", None, ""),
    ("logout", "POST /api/v3/logout", None, ""),
]


@pytest.mark.parametrize(("name", "line", "data", "query"), SDK_CALLS)
def test_the_sdk_composes_and_we_send(name: str, line: str, data: dict[str, Any] | None, query: str) -> None:
    with Peer() as peer, exchange_with(peer) as exchange:
        call = getattr(exchange.sdk(), name)
        assert (call() if data is None else call(data)).status == 200
        [(_, request)] = peer.requests
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == f"{line}{query} HTTP/1.1"
    assert {f"Authorization: {AUTH}", "version: 3", "Content-Type: application/json"} <= set(headers)
    assert body == b"" if line.startswith("GET") else json.loads(body) == data


def test_the_sdks_traps_are_closed() -> None:
    with Peer() as peer, exchange_with(peer) as exchange:
        with pytest.raises(ValueError, match="expected what to exit"):
            exchange.sdk().exit_positions({})
        with pytest.raises(NotImplementedError):
            exchange.sdk().quotes_v2({"symbols": "NSE:A"})  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            exchange.sdk().place_order({"price": object()})
        assert peer.connections == 0


def test_the_sdk_opens_no_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sdk.load()
    sdk.calls(cast("sdk.Service", None), AUTH)
    assert list(tmp_path.iterdir()) == []
