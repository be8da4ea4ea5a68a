"""The login's JSON routes are documented where they are served, and every documented answer is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate

from app.web.middleware.failures import FREE_FAILURES
from app.web.openapi import ROUTES, document
from app.web.openapi_login import LOGIN_ROUTES
from tests.fyers_sim import FyersSim, SimClock
from tests.unit.login_desk import ADMIN, MORNING, LoginDeskOfTests

DOCUMENT = document(LOGIN_ROUTES)
PAGES = {
    ("GET", "/fyers/login"),
    ("GET", "/fyers/callback"),
    ("POST", "/fyers/session"),
    ("POST", "/fyers/leave"),
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LoginDeskOfTests]:
    with (
        FyersSim(clock=SimClock(MORNING, running=False), rate_limits=False) as sim,
        closing(LoginDeskOfTests(tmp_path, sim)) as made,
    ):
        yield made


def code(desk: LoginDeskOfTests) -> dict[str, str]:
    return {"auth_code": desk.sim.issue_auth_code()}


def log_in(desk: LoginDeskOfTests) -> None:
    assert desk.bearer("POST", "/generate-token", code(desk)).status_code == 200


def gone(desk: LoginDeskOfTests) -> None:
    desk.sim.server.close()


def tired(desk: LoginDeskOfTests) -> None:
    for _ in range(FREE_FAILURES):
        assert desk.bearer("GET", "/auth-url", token="wrong").status_code == 401


def no_register(desk: LoginDeskOfTests) -> None:
    """Whether a token is a client's cannot be told."""
    desk.clients.down = True


def broken(desk: LoginDeskOfTests, method: str, path: str) -> Any:
    headers = {"Authorization": "Bearer desk-admin-token"}
    return desk.browser.open(path, method=method, data=b"{", headers=headers)


Ask = Callable[[LoginDeskOfTests], Any]


def ask(path: str, body: object = None, *before: Ask, method: str = "POST", token: str = ADMIN) -> Ask:
    """A request after some steps; `body` may be made from the desk."""

    def run(desk: LoginDeskOfTests) -> Any:
        for step in before:
            step(desk)
        return desk.bearer(method, path, body(desk) if callable(body) else body, token=token)

    return run


CODE, REFRESH, LOGOUT, URL = "/generate-token", "/refresh-token", "/logout", "/auth-url"
NO_CODE, PIN = {"auth_code": "x"}, {"pin": "1234"}
ASKED: list[tuple[str, str, int, Ask]] = [
    ("get", URL, 200, ask(URL, method="GET")),
    ("get", URL, 401, ask(URL, method="GET", token="wrong")),
    ("get", URL, 403, ask(URL, method="GET", token="hook")),
    ("post", CODE, 200, ask(CODE, code)),
    ("post", CODE, 422, ask(CODE, NO_CODE)),
    ("post", CODE, 503, ask(CODE, NO_CODE, gone)),
    ("post", REFRESH, 200, ask(REFRESH, PIN, log_in)),
    ("post", REFRESH, 422, ask(REFRESH, PIN)),
    ("post", REFRESH, 503, ask(REFRESH, PIN, log_in, gone)),
    ("post", LOGOUT, 200, ask(LOGOUT)),
    ("post", LOGOUT, 503, ask(LOGOUT, None, log_in, gone)),
    ("post", CODE, 400, lambda desk: broken(desk, "POST", CODE)),
    ("post", REFRESH, 400, lambda desk: broken(desk, "POST", REFRESH)),
    ("post", CODE, 413, ask(CODE, {"x": "x" * 20_000})),
    ("post", REFRESH, 413, ask(REFRESH, {"x": "x" * 20_000})),
    *(("post", path, 401, ask(path, {}, token="wrong")) for path in (CODE, REFRESH, LOGOUT)),
    ("get", URL, 429, ask(URL, None, tired, method="GET", token="wrong")),
    ("get", URL, 503, ask(URL, None, no_register, method="GET", token="wrong")),
    *(("post", path, 429, ask(path, {}, tired, token="wrong")) for path in (CODE, REFRESH, LOGOUT)),
    *(("post", path, 403, ask(path, {}, token="hook")) for path in (CODE, REFRESH, LOGOUT)),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a[1]} {a[2]}")
def test_every_answer_is_as_documented(desk: LoginDeskOfTests, asked: tuple[str, str, int, Ask]) -> None:
    method, path, status, asks = asked
    answer = asks(desk)
    assert answer.status_code == status, answer.text
    content = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"]
    (schema,) = (content[kind]["schema"] for kind in content if answer.content_type.startswith(kind))
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert list(validator.iter_errors(answer.get_json(force=True))) == []


def test_no_other_answer_is_documented() -> None:
    documented = {
        (route.method, route.path, status)
        for route in LOGIN_ROUTES
        for status in (*route.good, *route.refusals)
    }
    assert documented == {(method, path, status) for method, path, status, _ in ASKED}


def test_the_document_is_valid_and_served_where_there_is_a_login(desk: LoginDeskOfTests) -> None:
    validate(DOCUMENT)
    assert desk.browser.get("/openapi.json").get_json() == DOCUMENT
    assert all(DOCUMENT["paths"][r.path][r.method]["security"] == [{"bearer": []}] for r in LOGIN_ROUTES)


def test_the_login_s_routes_are_the_documented_ones_and_the_pages(desk: LoginDeskOfTests) -> None:
    served = {
        (method, rule.rule)
        for rule in desk.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("fyers_login.")
    }
    documented = {(route.method.upper(), route.path) for route in LOGIN_ROUTES}
    assert served == documented | PAGES
    assert not documented & {(route.method.upper(), route.path) for route in ROUTES}
