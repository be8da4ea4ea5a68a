"""Secrets sent through every route, rightly and wrongly, with everything failing that can: none is left anywhere."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import create_engine, inspect, make_url, text

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.canaries import APP, Canaries, CanaryService
from tests.fyers_sim import FyersSim
from tests.simulator.faults import make_fault

pytestmark = pytest.mark.slow
JSON = {"Content-Type": "application/json"}
GOOD = {
    "symbol": "NIFTY",
    "strikeprice": 24500,
    "optionType": "CE",
    "expiry": "WEEKLY",
    "action": "BUY",
    "lots": 1,
}


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def sim(tmp_path: Path, canaries: Canaries) -> Iterator[FyersSim]:
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(
        ledger=tmp_path / "ledger.jsonl",
        masters=masters,
        rate_limits=False,
        tokens=(canaries.given_token,),
        app_id=APP,
        secret=canaries.app_secret,
        pin=canaries.pin,
    ) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def service(
    request: pytest.FixtureRequest, sim: FyersSim, tmp_path: Path, canaries: Canaries
) -> Iterator[CanaryService]:
    env = canaries.settings(sim)
    if request.param == "postgres":
        url = make_url(request.getfixturevalue("postgres_url")).set(password=canaries.database)
        env |= {"DATABASE_URL": url.render_as_string(hide_password=False), "ORDER_TAG_PREFIX": "CNRY"}
    directory = tmp_path / "served"
    directory.mkdir()
    with CanaryService(directory, env, canaries=canaries) as running:
        yield running


def dump(service: CanaryService) -> dict[str, bytes]:
    """Every row of every table, as the database writes it."""
    url = service.env.get("DATABASE_URL") or f"sqlite:///{service.instance / 'orders.sqlite3'}"
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return {
                f"table {name}": repr(connection.execute(text(f'SELECT * FROM "{name}"')).all()).encode()
                for name in inspect(connection).get_table_names()
            }
    finally:
        engine.dispose()


def headers_of(c: Canaries, client_token: str) -> list[dict[str, str]]:
    """Right, short of scope, nearly right, and in every wrong place."""
    basic = base64.b64encode(f"admin:{c.admin}".encode()).decode()
    return [
        {"Authorization": f"Bearer {c.admin}"},
        {"Authorization": f"Bearer {c.webhook}"},
        {"Authorization": f"Bearer {client_token}"},
        {"Authorization": f"Bearer {c.admin}x"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": c.admin, "Cookie": f"fyers_session={c.admin}; token={c.webhook}"},
        {"X-Api-Key": c.admin, "User-Agent": c.webhook, "Referer": f"http://x/?token={quote(c.admin)}"},
        {
            "X-Request-ID": c.admin,
            "Idempotency-Key": c.webhook,
            "X-Forwarded-For": c.admin,
            "Origin": c.admin,
        },
        {"webhook-id": c.webhook, "webhook-timestamp": c.admin, "webhook-signature": f"v1,{c.hmac}"},
    ]


def bodies_of(c: Canaries, client_token: str) -> list[tuple[bytes, dict[str, str]]]:
    def as_json(**fields: object) -> bytes:
        return json.dumps(fields).encode()

    good = {**GOOD, "token": c.webhook}
    text_of = as_json(**good).decode()
    return [
        (as_json(**good), JSON),
        (as_json(**{**good, "token": client_token, "lots": 999}), JSON),
        (as_json(**{**good, "token": f"{c.webhook}x"}), JSON),
        (
            as_json(
                **{**GOOD, "tokn": c.webhook, "TOKEN ": c.admin, "secret": c.pin, "more": {"pin": [c.pin]}}
            ),
            JSON,
        ),
        (as_json(**good, passphrase=c.admin, **{"key of mine": c.webhook}), JSON),
        (as_json(**{**good, "symbol": c.webhook, "action": c.admin}), JSON),
        (as_json(**good, strategy=client_token), JSON),
        (as_json(**good, strategy=f"orb {c.pin}", ticker=c.app_secret), JSON),
        (as_json(state="ACTIVE", reason=f"since {c.session}"), JSON),
        (as_json(**{**good, "token": [c.webhook]}), JSON),
        (as_json(**{**good, "token": {"value": c.webhook}}), JSON),
        (text_of[:-1].encode(), JSON),
        (text_of.replace(",", ",,", 1).encode(), JSON),
        ((text_of + c.admin).encode(), JSON),
        (text_of.replace('"token"', '"token":"x","token"').encode(), JSON),
        (text_of.encode("utf-16"), JSON),
        (text_of.encode() + b"\xff\xfe", JSON),
        (text_of.encode(), {"Content-Type": f"text/plain; charset={quote(c.webhook)}"}),
        (
            urlencode({**good, "pin": c.pin, "auth_code": c.pin}).encode(),
            {"Content-Type": "application/x-www-form-urlencoded"},
        ),
        (as_json(pin=c.pin, auth_code=c.admin, code=c.webhook), JSON),
        (text_of.encode() + b" " * 70_000, JSON),
        (as_json(token=[c.webhook], action="HEARTBEAT", strategy="orb"), JSON),
        (c.webhook.encode(), JSON),
        (b"", JSON),
    ]


def everywhere(service: CanaryService, c: Canaries, client_token: str) -> int:
    """Each route that the service documents, and one that it does not have, with each header and each body."""
    paths = json.loads(json.dumps(service.get("/openapi.json").body))["paths"]
    routes = [
        (m.upper(), p)
        for p, methods in paths.items()
        for m in methods
        if m in {"get", "post", "put", "patch", "delete"}
    ]
    assert len(routes) > 20
    query = urlencode({"token": c.webhook, "admin_token": c.admin, "auth_code": c.pin, "pin": c.pin})
    typed = urlencode({"status": c.webhook, "from": c.admin, "symbol": client_token, "limit": c.app_secret})
    asked = 0
    for method, path in [*routes, ("GET", "/nowhere/{x}"), ("POST", "/{x}"), ("PATCH", "/webhook")]:
        if path in {"/logout", "/api/v1/kill"}:
            continue  # asked at the end: nothing after them would get far
        filled = re.sub(r"\{[^}]+\}", quote(c.admin, safe=""), path)
        for headers in headers_of(c, client_token):
            service.ask(method, filled, b"{}" if method != "GET" else b"", {**headers, **JSON})
            asked += 1
        for words in (query, typed):
            service.ask(method, f"{filled}?{words}", b"", {"Authorization": f"Bearer {c.admin}"})
        if method != "GET":
            for body, headers in bodies_of(c, client_token):
                service.ask(method, filled, body, {**headers, "Authorization": f"Bearer {c.admin}"})
                asked += 1
    return asked


def failing(service: CanaryService, sim: FyersSim, c: Canaries) -> None:
    """A broker that answers with our own secrets, or with nothing, at every step."""
    quoted = f"{APP}:{c.given_token} is invalid"  # what was sent with an order or a read
    echo = json.dumps({"s": "error", "code": -16, "message": quoted})
    at_login = json.dumps(
        {"s": "error", "code": -1, "message": f"no such pin or code: {c.pin} {c.others['wrong code']}"}
    )
    for status in (200, 400, 401, 500):
        sim.faults.next_order("custom", status=status, body=echo)
        service.alert(strikeprice=24500, lots=1, idempotency_key=f"echo {status}")
    for name in ("html_502", "reset", "truncated", "rms_reject", "auth_401", "hang"):
        sim.faults.next_order(name)
        service.alert(strikeprice=24500, lots=1, idempotency_key=name)
    for endpoint in ("GET /positions", "GET /orders", "GET /data/quotes"):
        sim.faults.hold(endpoint, make_fault("custom", status=403, body=echo))
    for endpoint in ("POST /validate-authcode", "POST /validate-refresh-token"):
        sim.faults.hold(endpoint, make_fault("custom", status=400, body=at_login))
    admin = {**JSON, "Authorization": f"Bearer {c.admin}"}
    service.alert(strikeprice=24500, lots=1, idempotency_key="all fails")
    service.alert(strikeprice=24500, action="EXIT", idempotency_key="exit fails")
    for path, fields in (
        ("/generate-token", {"auth_code": c.others["wrong code"]}),
        ("/refresh-token", {"pin": c.pin}),
    ):
        service.ask("POST", path, json.dumps(fields).encode(), admin)
    sim.faults.clear()


def logged_in_and_out(service: CanaryService, sim: FyersSim, c: Canaries) -> None:
    admin = {**JSON, "Authorization": f"Bearer {c.admin}"}
    code = sim.tokens.issue_auth_code()
    assert service.ask("POST", "/generate-token", json.dumps({"auth_code": code}).encode(), admin) == 200
    assert service.ask("POST", "/refresh-token", json.dumps({"pin": c.pin}).encode(), admin) == 200
    assert service.ask("POST", "/refresh-token", json.dumps({"pin": f"{c.pin}0"}).encode(), admin) >= 400
    sim.faults.next("POST /validate-refresh-token", "html_502")
    assert service.ask("POST", "/refresh-token", json.dumps({"pin": c.pin}).encode(), admin) == 503
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for token in (c.admin, c.webhook, f"{c.admin}x"):
        service.ask("POST", "/fyers/session", urlencode({"token": token}).encode(), form)
    assert service.alert(strikeprice=24500, lots=1, idempotency_key="with the login's token").status == 200
    for path in ("/logout", "/api/v1/kill"):
        service.ask("POST", path, json.dumps({"reason": "test", "token": c.admin}).encode(), admin)
    c.others |= {"auth code": code, **{f"access {n}": t for n, t in enumerate(sim.tokens._access)}}
    c.others |= {f"refresh {n}": t for n, t in enumerate(sim.tokens._refresh)}


def test_no_secret_is_left_in_the_database_the_log_or_an_answer(
    service: CanaryService, sim: FyersSim, canaries: Canaries
) -> None:
    made = service.flask("clients", "create", "canary", "--scope", "orders", "--scope", "read")
    token = next(word for word in made.split() if len(word) >= 40)
    canaries.others |= {"client token": token, "wrong code": f"cnrycode{token[::-1]}"}
    assert service.alert(strikeprice=24500, lots=1).status == 200
    failing(service, sim, canaries)
    asked = everywhere(service, canaries, token)
    logged_in_and_out(service, sim, canaries)
    service.stop()
    assert asked > 500
    evidence = service.evidence() | dump(service)
    assert any(place.startswith("table orders") and b"NIFTY" in data for place, data in evidence.items())
    assert "audit seal 1 up to" in service.log  # there is a log, down to INFO
    hits = canaries.hits(evidence)
    assert hits == [], "\n".join(hits[:40])


def test_the_search_finds_each_spelling() -> None:
    canaries = Canaries()
    secret = canaries.admin
    for around in (
        secret,
        quote(secret, safe=""),
        json.dumps(secret),
        base64.b64encode(f"ab{secret}cd".encode()).decode(),
    ):
        assert canaries.hits({"here": f"x {around} y".encode()})
    assert canaries.hits({"here": b"nothing"}) == []
