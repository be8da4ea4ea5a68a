"""The login's JSON routes are documented where they are served, and every documented answer is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate

from app.web.openapi import ROUTES, document
from app.web.openapi_login import LOGIN_ROUTES
from tests.fyers_sim import FyersSim, SimClock
from tests.unit.login_desk import MORNING, LoginDeskOfTests

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


def broken(desk: LoginDeskOfTests, method: str, path: str) -> Any:
    headers = {"Authorization": "Bearer desk-admin-token"}
    return desk.browser.open(path, method=method, data=b"{", headers=headers)


Ask = Callable[[LoginDeskOfTests], Any]
ASKED: list[tuple[str, str, int, Ask]] = [
    ("get", "/auth-url", 200, lambda d: d.bearer("GET", "/auth-url")),
    ("get", "/auth-url", 401, lambda d: d.bearer("GET", "/auth-url", token="wrong")),
    ("get", "/auth-url", 403, lambda d: d.bearer("GET", "/auth-url", token="hook")),
    ("post", "/generate-token", 200, lambda d: d.bearer("POST", "/generate-token", code(d))),
    ("post", "/generate-token", 422, lambda d: d.bearer("POST", "/generate-token", {"auth_code": "x"})),
    (
        "post",
        "/generate-token",
        503,
        lambda d: (gone(d), d.bearer("POST", "/generate-token", {"auth_code": "x"}))[1],
    ),
    (
        "post",
        "/refresh-token",
        200,
        lambda d: (log_in(d), d.bearer("POST", "/refresh-token", {"pin": "1234"}))[1],
    ),
    ("post", "/refresh-token", 422, lambda d: d.bearer("POST", "/refresh-token", {"pin": "1234"})),
    (
        "post",
        "/refresh-token",
        503,
        lambda d: (log_in(d), gone(d), d.bearer("POST", "/refresh-token", {"pin": "1234"}))[2],
    ),
    ("post", "/logout", 200, lambda d: d.bearer("POST", "/logout")),
    ("post", "/logout", 503, lambda d: (log_in(d), gone(d), d.bearer("POST", "/logout"))[2]),
]
for _path in ("/generate-token", "/refresh-token"):
    ASKED += [
        ("post", _path, 400, lambda d, p=_path: broken(d, "POST", p)),  # type: ignore[misc]
        ("post", _path, 413, lambda d, p=_path: d.bearer("POST", p, {"x": "x" * 20_000})),  # type: ignore[misc]
    ]
for _path in ("/generate-token", "/refresh-token", "/logout"):
    ASKED += [
        ("post", _path, 401, lambda d, p=_path: d.bearer("POST", p, {}, token="wrong")),  # type: ignore[misc]
        ("post", _path, 403, lambda d, p=_path: d.bearer("POST", p, {}, token="hook")),  # type: ignore[misc]
    ]


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a[1]} {a[2]}")
def test_every_answer_is_as_documented(desk: LoginDeskOfTests, asked: tuple[str, str, int, Ask]) -> None:
    method, path, status, ask = asked
    answer = ask(desk)
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
