"""A small client of the simulator: one keep-alive connection, as one worker of the service has."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, ClassVar

from tests.fyers_sim import FyersSim, nifty_ticker

DAY = date(2026, 9, 9)
OPEN = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # 10:00 IST on a Wednesday
TICKER = nifty_ticker(DAY)
POSITION = f"{TICKER}-INTRADAY"


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
