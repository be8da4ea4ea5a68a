"""Requests that test_openapi.py sends: how they are built, and those to the operator's routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from werkzeug.test import TestResponse

from app.domain.order import Side
from app.domain.outcome import Unknown
from app.service.records import Stranger
from app.web.middleware.failures import FREE_FAILURES
from tests.builders import SCOPE
from tests.fake_clients import a_client
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

Ask = Callable[[WebDesk], TestResponse]
Asked = tuple[str, str, int, Ask]


KILL = "/api/v1/kill"
STATE, RESOLVE, JOB = "/api/v1/state", "/api/v1/orders/{order_id}/resolve", "/internal/jobs/{name}"


def prepared(ask: Ask, prepare: Callable[[WebDesk], object]) -> Ask:
    def run(desk: WebDesk) -> TestResponse:
        prepare(desk)
        return ask(desk)

    return run


def down(desk: WebDesk) -> None:
    desk.store.down = True


def got(path: str, url: str, status: int, token: str | None = None, prepare: Any = None) -> Asked:
    def ask(desk: WebDesk) -> TestResponse:
        return desk.api("get", url) if token is None else desk.api("get", url, token)

    return "get", path, status, ask if prepare is None else prepared(ask, prepare)


def state(status: int, body: Any = None, token: str = ADMIN, prepare: Any = None) -> Asked:
    return posted(STATE, STATE, status, body or {"state": "HALTED", "reason": "going away"}, token, prepare)


def job(status: int, name: str = "reconcile", token: str = ADMIN, prepare: Any = None) -> Asked:
    return posted(JOB, f"/internal/jobs/{name}", status, b"", token, prepare)


def posted(path: str, url: str, status: int, body: Any, token: str = ADMIN, prepare: Any = None) -> Asked:
    def ask(desk: WebDesk) -> TestResponse:
        return desk.api("post", url, token, body)

    return "post", path, status, ask if prepare is None else prepared(ask, prepare)


def resolved(status: int, token: str = ADMIN, prepare: Any = None, verdict: str = "REJECTED") -> Asked:
    """A verdict on an order in doubt."""
    body = {"status": verdict, "reason": "not in the app"}

    def ask(desk: WebDesk) -> TestResponse:
        desk.broker.next_place.append(Unknown("no answer"))
        order = desk.webhook().get_json()["order_id"]
        if prepare is not None:
            prepare(desk)
        return desk.api("post", f"/api/v1/orders/{order}/resolve", token, body)

    return "post", RESOLVE, status, ask


def killed(status: int, body: Any = None, token: str = ADMIN, prepare: Any = None) -> Asked:
    return posted(KILL, KILL, status, body or {"do": "flatten", "reason": "enough"}, token, prepare)


def held_and_by_hand(desk: WebDesk) -> None:
    desk.webhook()
    desk.broker.by_hand("NSE:X", 65)


def a_stranger(desk: WebDesk) -> None:
    now = desk.clock.now()
    with desk.store.write() as tx:
        tx.add_stranger(SCOPE, Stranger("1", "NSE:X", Side.BUY, 65, "INTRADAY", None, now, now))


def clients_down(desk: WebDesk) -> None:
    desk.clients.down = True


CONTROL: list[Asked] = [
    got(STATE, STATE, 200, prepare=a_stranger),
    got(STATE, STATE, 401, "wrong"),
    got(STATE, STATE, 403, TOKEN),
    got(STATE, STATE, 503, prepare=down),
    state(200),
    state(200, {"state": "ACTIVE", "reason": "looked at it"}, prepare=a_stranger),
    state(400, {"state": "PAUSED"}),
    state(401, token="wrong"),
    state(403, token=TOKEN),
    state(413, b" " * 70_000),
    state(503, prepare=down),
    killed(200),
    killed(200, {"do": "cancel", "reason": "enough"}, prepare=lambda desk: desk.webhook()),
    killed(
        200,
        {"do": "flatten", "reason": "enough", "all_positions": "ALL POSITIONS"},
        prepare=held_and_by_hand,
    ),
    killed(400, {"do": "flatten", "reason": "enough", "all_positions": "all"}),
    killed(400, {"do": "resume", "reason": "enough"}),
    killed(401, token="wrong"),
    killed(403, token=TOKEN),
    killed(413, b" " * 70_000),
    killed(503, prepare=down),
    resolved(200),
    resolved(400, verdict="FILLED"),
    resolved(401, token="wrong"),
    resolved(403, token=TOKEN),
    posted(RESOLVE, "/api/v1/orders/NOSUCH/resolve", 404, {"status": "REJECTED", "reason": "not in the app"}),
    posted(RESOLVE, "/api/v1/orders/NOSUCH/resolve", 413, b" " * 70_000),
    resolved(503, prepare=down),
    job(200),
    job(401, token="wrong"),
    job(403, token=TOKEN),
    job(404, "nosuch"),
    job(503, prepare=down),
    got("/metrics", "/metrics", 200, ADMIN),
    got("/metrics", "/metrics", 401, "wrong"),
    got("/metrics", "/metrics", 403, TOKEN),
    got("/metrics", "/metrics", 503, "unknown", prepare=clients_down),
]


def tired(desk: WebDesk) -> None:
    """The address has failed as often as it may."""
    for _ in range(FREE_FAILURES):
        assert desk.webhook(token="wrong").status_code == 401


def read_often(desk: WebDesk) -> None:
    for _ in range(120):
        assert desk.client.get("/openapi.json").status_code == 200


def beat(**fields: Any) -> Ask:
    raw = json.dumps({"token": TOKEN, "action": "heartbeat", **fields}).encode()
    return lambda desk: desk.webhook(raw)


def beats_down(desk: WebDesk) -> None:
    desk.heartbeats.down = True


def narrow(method: str, path: str, url: str, *scopes: str, **changes: Any) -> Asked:
    """A client that may not do this, or not from here."""

    def ask(desk: WebDesk) -> TestResponse:
        return desk.api(method, url, a_client(desk.clients, "desk-2", *scopes, **changes))

    return method, path, 403, ask


ORDERS, ONE, CONTRACTS = "/api/v1/orders", "/api/v1/orders/{order_id}", "/api/v1/contracts"
CHECK, REFUSED = "/api/v1/check", "/api/v1/refused"
DOOR: list[Asked] = [
    ("post", "/webhook", 200, beat(every_seconds="300", strategy="orb")),
    ("post", "/webhook", 400, beat(every_seconds=5)),
    ("post", "/webhook", 503, prepared(beat(every_seconds=300), beats_down)),
    ("post", "/webhook", 429, prepared(lambda desk: desk.webhook(token="wrong"), tired)),
    *(got(path, path, 429, "wrong", tired) for path in (ORDERS, CONTRACTS, REFUSED, STATE)),
    got(ONE, f"{ORDERS}/NOSUCH", 429, "wrong", tired),
    *(posted(path, path, 429, ALERT, "wrong", tired) for path in (ORDERS, CHECK, STATE)),
    posted(RESOLVE, f"{ORDERS}/NOSUCH/resolve", 429, b"", "wrong", tired),
    job(429, token="wrong", prepare=tired),
    got("/metrics", "/metrics", 429, "wrong", tired),
    *(got(path, path, 401, "wrong") for path in ("/readyz", "/readyz/orders")),
    *(got(path, path, 429, "wrong", tired) for path in ("/readyz", "/readyz/orders")),
    got("/openapi.json", "/openapi.json", 429, prepare=read_often),
    narrow("get", ORDERS, ORDERS, "orders"),
    narrow("get", ONE, f"{ORDERS}/NOSUCH", "orders"),
    narrow("get", CONTRACTS, CONTRACTS, networks=("10.0.0.0/8",)),
    narrow("post", ORDERS, ORDERS, "read"),
    narrow("post", CHECK, CHECK, "read"),
]
