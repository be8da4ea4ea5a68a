"""Security headers on every answer, and which web pages may ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from werkzeug.test import TestResponse

from app.settings import Settings
from app.web.middleware.headers import SECURITY
from tests.unit.login_desk import NewDesk
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

PAGE = "https://desk.example"


def asked(desk: WebDesk, path: str, origin: str | None, method: str = "GET") -> TestResponse:
    """A request of a page's script; OPTIONS: the browser's question before it."""
    headers = {"Authorization": f"Bearer {ADMIN}"} | ({"Origin": origin} if origin else {})
    if method == "OPTIONS":
        headers = {"Origin": origin or "", "Access-Control-Request-Method": "GET"}
    return desk.client.open(path, method=method, headers=headers)


@pytest.mark.parametrize(
    "ask",
    [
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/openapi.json"),
        ("get", "/no/such/path"),
        ("delete", "/webhook"),
        ("options", "/webhook"),
        ("head", "/healthz"),
        ("get", "/api/v1/orders"),
        ("post", "/webhook"),
        ("post", "/api/v1/kill"),
    ],
    ids=" ".join,
)
def test_every_answer_has_the_security_headers(tmp_path: Path, ask: tuple[str, str]) -> None:
    answer = WebDesk(tmp_path).client.open(ask[1], method=ask[0].upper())
    assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_accepted_and_a_refused_alert_too(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    for answer in (desk.webhook(), desk.webhook(b"{"), desk.webhook(b" " * 70_000)):
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY


def test_the_login_page_keeps_its_own_policy(new_desk: NewDesk) -> None:
    answer = new_desk().app.test_client().get("/fyers/login")
    policies = answer.headers.getlist("Content-Security-Policy")
    assert len(policies) == 1
    assert "form-action 'self'" in policies[0]
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_no_origin_may_ask_by_default(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    for answer in (asked(desk, "/api/v1/orders", PAGE), asked(desk, "/api/v1/orders", PAGE, "OPTIONS")):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_a_named_origin_may_ask_and_no_other(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, cors_origins=f"{PAGE}, http://localhost:3000")
    for origin, may in (
        (PAGE, True),
        ("http://localhost:3000", True),
        ("https://desk.example.evil", False),
        ("http://desk.example", False),
        ("null", False),
        (None, False),
    ):
        answer = asked(desk, "/api/v1/orders", origin)
        assert answer.status_code == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if may else None)
        assert "Origin" in answer.headers.getlist("Vary")
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_is_answered_without_a_token(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, cors_origins=PAGE)
    answer = asked(desk, "/api/v1/orders", PAGE, "OPTIONS")
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert (
        "Access-Control-Allow-Origin" not in asked(desk, "/api/v1/orders", "https://other", "OPTIONS").headers
    )


def test_all_origins_never_with_credentials(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, cors_origins="*")
    answer = asked(desk, "/api/v1/orders", "https://anybody.example")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_an_error_can_be_read_by_the_page_as_well(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, cors_origins=PAGE)
    answer = desk.client.post("/api/v1/orders", json=ALERT, headers={"Origin": PAGE})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    good = desk.client.post(
        "/api/v1/orders", json=ALERT, headers={"Origin": PAGE, "Authorization": f"Bearer {TOKEN}"}
    )
    assert "X-Request-Id" in good.headers["Access-Control-Expose-Headers"]


def test_the_login_s_pages_are_nobody_s(new_desk: NewDesk) -> None:
    client = new_desk(cors_origins="*").app.test_client()
    for answer in (
        client.get("/fyers/login", headers={"Origin": PAGE}),
        client.options("/fyers/session", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"}),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "text",
    [
        "desk.example",
        "https://desk.example/",
        "https://desk.example/path",
        "ftp://desk.example",
        "null",
        "https://u:p@desk.example",
        "https://",
    ],
)
def test_what_is_no_origin_is_named_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings.model_validate({"cors_origins": text})
