"""The OpenAPI document says what the service does: every route, every status and every body, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from werkzeug.test import TestResponse

from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.status import Status
from app.web.errors import STATUS
from app.web.openapi import HEADERS, document
from app.web.openapi_config import CONFIG_ROUTES
from tests.unit.openapi_asks import CONTROL, DOOR, Ask, Asked, down, got, prepared
from tests.unit.openapi_config_asks import CONFIGURATION
from tests.unit.test_signature import SECRET, sign
from tests.unit.web_desk import ALERT, TOKEN, WebDesk

DOCUMENT = document(CONFIG_ROUTES)


def no_master(desk: WebDesk) -> None:
    desk.contracts.missing = True


def no_quotes(desk: WebDesk) -> None:
    desk.broker.fail.add("quotes")


def no_price(desk: WebDesk) -> None:
    usual = desk.broker.quotes([desk.contract.ticker])[desk.contract.ticker]
    desk.broker.prices[desk.contract.ticker] = replace(usual, ltp=None)


def coming_to(step: Any) -> Callable[[WebDesk], None]:
    return lambda desk: desk.broker.next_place.append(step)


def placing(path: str) -> list[Asked]:
    """Every answer that an alert can have, by either door."""

    def ask(**fields: Any) -> Ask:
        def run(desk: WebDesk) -> TestResponse:
            if path == "/webhook":
                return desk.webhook(**fields)
            return desk.api("post", path, TOKEN, {**ALERT, **fields})

        return run

    def raw(body: bytes) -> Ask:
        def run(desk: WebDesk) -> TestResponse:
            return desk.webhook(body) if path == "/webhook" else desk.api("post", path, TOKEN, body)

        return run

    def unauthenticated(desk: WebDesk) -> TestResponse:
        return desk.webhook(token="wrong") if path == "/webhook" else desk.api("post", path, "wrong")

    def being_sent(desk: WebDesk) -> None:
        ask(idempotency_key="k")(desk)
        (order,) = desk.store.orders
        soon = desk.clock.now() + timedelta(seconds=1)
        desk.store.data.orders[order.id] = replace(order, status=Status.SENDING, answer_by=soon)

    def state(status: Status) -> Ask:
        """A repeat's answer, the row being in that state by now."""

        def run(desk: WebDesk) -> TestResponse:
            ask(idempotency_key="k")(desk)
            (order,) = desk.store.orders
            desk.store.data.orders[order.id] = replace(order, status=status)
            return ask(idempotency_key="k")(desk)

        return run

    doubt = coming_to(Unknown("no answer"))
    answers: list[tuple[int, Ask]] = [
        (200, ask()),
        (200, prepared(ask(idempotency_key="k"), ask(idempotency_key="k"))),
        (200, prepared(ask(action="EXIT", lots=None), ask())),
        (200, state(Status.FILLED)),
        (200, state(Status.CANCELLED)),
        (202, prepared(ask(), doubt)),
        (202, prepared(prepared(ask(action="EXIT", lots=None), ask(idempotency_key="k")), doubt)),
        (202, state(Status.NEEDS_REVIEW)),
        (400, raw(b"{")),
        (400, ask(lots=0, expiry="SOON")),
        (400, prepared(ask(), no_price)),
        (401, unauthenticated),
        (409, prepared(ask(idempotency_key="k"), being_sent)),
        (413, raw(b" " * 70_000)),
        (422, ask(lots=2)),
        (422, ask(symbol="NOSUCH")),
        (422, ask(action="EXIT")),
        (422, prepared(ask(), coming_to(Refused("-50", "no margin")))),
        (422, state(Status.NOT_PLACED)),
        (422, prepared(ask(idempotency_key="k", strategy="b"), ask(idempotency_key="k"))),
        (503, prepared(ask(), down)),
        (503, prepared(ask(), no_master)),
        (503, prepared(ask(), no_quotes)),
        (503, prepared(ask(), coming_to(NotSent("refused", "no connection")))),
    ]
    return [("post", path, status, run) for status, run in answers]


def checked(status: int, body: Any = ALERT, token: str = TOKEN, prepare: Any = None) -> Asked:
    def ask(desk: WebDesk) -> TestResponse:
        return desk.api("post", "/api/v1/check", token, body)

    return "post", "/api/v1/check", status, ask if prepare is None else prepared(ask, prepare)


def one_order(desk: WebDesk) -> TestResponse:
    order = desk.webhook().get_json()["order_id"]
    return desk.api("get", f"/api/v1/orders/{order}", TOKEN)


def refusals_of_two(desk: WebDesk) -> None:
    desk.webhook(token="wrong")
    desk.webhook(lots=0)


ORDERS, ONE, CONTRACTS = "/api/v1/orders", "/api/v1/orders/{order_id}", "/api/v1/contracts"
REFUSED, READY, READY_ORDERS = "/api/v1/refused", "/readyz", "/readyz/orders"
NIFTY = f"{CONTRACTS}?symbol=NIFTY&strike=24500&type=CE"
EXIT = {**ALERT, "action": "EXIT"}
ASKED: list[Asked] = [
    *placing("/webhook"),
    *placing(ORDERS),
    got(ORDERS, ORDERS, 200, prepare=lambda desk: (desk.webhook(), desk.webhook(lots=2))),
    got(ORDERS, f"{ORDERS}?limit=0", 400),
    got(ORDERS, ORDERS, 401, "wrong"),
    got(ORDERS, ORDERS, 503, prepare=down),
    ("get", ONE, 200, one_order),
    got(ONE, f"{ORDERS}/NOSUCH", 401, "wrong"),
    got(ONE, f"{ORDERS}/NOSUCH", 404),
    got(ONE, f"{ORDERS}/NOSUCH", 503, prepare=down),
    got(CONTRACTS, NIFTY, 200),
    got(CONTRACTS, CONTRACTS, 400),
    got(CONTRACTS, NIFTY, 401, "wrong"),
    got(CONTRACTS, NIFTY.replace("24500", "1"), 404),
    got(CONTRACTS, NIFTY, 503, prepare=no_master),
    checked(200),
    checked(200, {**ALERT, "lots": 2}),
    checked(200, {**ALERT, "symbol": "NOSUCH"}),
    checked(200, EXIT),
    checked(200, EXIT, prepare=lambda desk: desk.webhook()),
    checked(200, prepare=no_price),
    checked(400, {**ALERT, "lots": 0}),
    checked(401, token="wrong"),
    checked(413, b" " * 70_000),
    checked(503, prepare=down),
    checked(503, prepare=no_quotes),
    got(REFUSED, REFUSED, 200, prepare=refusals_of_two),
    got(REFUSED, f"{REFUSED}?limit=201", 400),
    got(REFUSED, REFUSED, 401, "wrong"),
    got(REFUSED, REFUSED, 403, TOKEN),
    got(REFUSED, REFUSED, 503, prepare=down),
    *CONTROL,
    *DOOR,
    *CONFIGURATION,
    got("/healthz", "/healthz", 200),
    got(READY, READY, 200),
    got(READY, READY, 503, prepare=down),
    got(READY_ORDERS, READY_ORDERS, 200),
    got(READY_ORDERS, READY_ORDERS, 503, prepare=lambda desk: setattr(desk.broker, "unready", "no token")),
    got("/openapi.json", "/openapi.json", 200),
]
FORBIDDEN: Asked = ("post", "/webhook", 403, lambda desk: desk.webhook())


def errors_in(answer: TestResponse, documented: dict[str, Any]) -> list[str]:
    ((media_type, content),) = documented["content"].items()
    assert answer.mimetype == media_type
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    said = answer.text if media_type == "text/plain" else json.loads(answer.data)
    return [f"{list(e.path)}: {e.message}" for e in Draft202012Validator(schema).iter_errors(said)]


@pytest.mark.parametrize(
    "asked",
    [*ASKED, FORBIDDEN],
    ids=[f"{n}-{m}-{p}-{s}" for n, (m, p, s, _) in enumerate([*ASKED, FORBIDDEN])],
)
def test_every_answer_is_as_documented(asked: Asked, tmp_path: Path) -> None:
    method, path, status, ask = asked
    desk = WebDesk(tmp_path, **({"ip_allowlist": "10.0.0.0/8"} if asked is FORBIDDEN else {}))
    answer = ask(desk)
    assert answer.status_code == status, answer.text
    documented = DOCUMENT["paths"][path][method]["responses"][str(status)]
    assert errors_in(answer, documented) == []
    headers = {name for name in HEADERS.values() if name in answer.headers}
    assert headers == set(documented.get("headers", {}))


def test_no_status_is_documented_that_no_route_gives() -> None:
    """Every documented answer is among those asked for above."""
    documented = {
        (method, path, int(status))
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }
    assert documented == {(method, path, status) for method, path, status, _ in [*ASKED, FORBIDDEN]}


def test_every_error_status_is_documented_somewhere_once_anything_raises_it() -> None:
    """The requests above cannot meet an error that comes into the code later: its class's name tells."""
    source = "\n".join(p.read_text() for p in (Path(__file__).parents[2] / "app").rglob("*.py"))
    raised = {
        status for kind, status in STATUS.items() if re.search(rf"raise (\w+\.)?{kind.__name__}\b", source)
    }
    answers = [op["responses"] for operations in DOCUMENT["paths"].values() for op in operations.values()]
    assert raised <= {int(status) for responses in answers for status in responses}


def test_the_routes_are_exactly_the_documented_ones(tmp_path: Path) -> None:
    routes = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in WebDesk(tmp_path).app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    documented = {(m, path) for path, operations in DOCUMENT["paths"].items() for m in operations}
    assert routes == documented


def test_the_document_is_valid_and_served_as_it_is_written(tmp_path: Path) -> None:
    validate(DOCUMENT)
    assert WebDesk(tmp_path).client.get("/openapi.json").get_json() == DOCUMENT


def test_the_usual_alert_fits_the_documented_body() -> None:
    schema = {"$ref": "#/components/schemas/AlertBody", "components": DOCUMENT["components"]}
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors({"token": TOKEN, **ALERT})) == []
    assert not validator.is_valid({**ALERT, "action": "HOLD"})


def test_a_field_that_is_not_documented_is_found() -> None:
    """The shapes are closed: without that, an answer could grow past the document unseen."""
    open_ones = {
        name
        for name, schema in DOCUMENT["components"]["schemas"].items()
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False
    }
    assert open_ones == {"AlertBody", "BeatBody"}


@pytest.mark.parametrize("path", ["/webhook", ORDERS])
def test_an_alert_can_be_signed_by_the_document_alone(path: str, tmp_path: Path) -> None:
    """By the names and patterns of its headers, without any token."""
    parameters = DOCUMENT["paths"][path]["post"]["parameters"]
    documented = {p["name"]: p["schema"] for p in parameters if p["name"].startswith("webhook-")}
    desk = WebDesk(tmp_path, webhook_hmac_secrets=SECRET)
    stamp, body = int(desk.clock.now().timestamp()), json.dumps(ALERT).encode()
    values = dict(zip(sorted(documented), ["msg-1", sign("msg-1", stamp, body), str(stamp)], strict=True))
    assert all(Draft202012Validator(documented[name]).is_valid(value) for name, value in values.items())
    answer = desk.client.post(path, data=body, headers=values, content_type="application/json")
    assert answer.status_code == 200, answer.text
    assert not Draft202012Validator(documented["webhook-id"]).is_valid("with.dot")
