"""The operator's browser session: who gets one, what its cookie is worth, and that no other site can use it."""

from __future__ import annotations

import pytest

from tests.unit.login_desk import ADMIN, LoginDeskOfTests, NewDesk


@pytest.fixture
def desk(new_desk: NewDesk) -> LoginDeskOfTests:
    return new_desk()


@pytest.mark.parametrize("path", ["/generate-token", "/refresh-token", "/logout", "/fyers/leave"])
def test_a_post_without_the_form_s_token_is_refused(desk: LoginDeskOfTests, path: str) -> None:
    token = desk.logged_in()
    for form in ({}, {"csrf": "0" * 64}, {"csrf": "ü"}):
        answer = desk.browser.post(
            path, data={"auth_code": desk.sim.issue_auth_code(), "pin": "1234", **form}
        )
        assert answer.status_code == 403
    assert desk.tokens.current(desk.clock.now()) == token
    assert token in desk.sim.tokens._access


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/auth-url"),
        ("POST", "/generate-token"),
        ("POST", "/refresh-token"),
        ("POST", "/logout"),
    ],
)
def test_all_is_behind_the_admin_token(desk: LoginDeskOfTests, method: str, path: str) -> None:
    assert desk.app.test_client().open(path, method=method).status_code == 401
    assert desk.bearer(method, path, {}, token="wrong").status_code == 401
    assert desk.bearer(method, path, {}, token="hook").status_code == 403


@pytest.mark.parametrize(("token", "status"), [("", 401), ("wrong", 401), ("hook", 403), ("ü" * 9, 401)])
def test_only_the_admin_token_opens_a_session(desk: LoginDeskOfTests, token: str, status: int) -> None:
    answer = desk.browser.post("/fyers/session", data={"token": token})
    assert answer.status_code == status
    assert "Set-Cookie" not in answer.headers
    assert "generate-authcode" not in desk.browser.get("/fyers/login").text


def test_the_cookie_is_signed_lax_and_short(desk: LoginDeskOfTests) -> None:
    cookie = desk.enter().headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=3600" in cookie
    assert "Secure" not in cookie
    assert ADMIN not in cookie
    desk.sim.advance(3601)
    assert "generate-authcode" not in desk.browser.get("/fyers/login").text


def test_the_cookie_is_for_tls_alone_where_the_browser_came_by_tls(new_desk: NewDesk) -> None:
    desk = new_desk(trusted_proxy_hops=1)
    data = {"token": ADMIN}
    behind = desk.browser.post("/fyers/session", data=data, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.headers["Set-Cookie"]
    assert (
        "Secure" in desk.browser.post("/fyers/session", data=data, base_url="https://t").headers["Set-Cookie"]
    )


def test_a_forged_or_foreign_cookie_is_no_session(new_desk: NewDesk, desk: LoginDeskOfTests) -> None:
    value = desk.enter().headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    other = new_desk(session_secret="another secret of forty characters......")
    ident, ends, mac = value.split(".")
    for forged in ("", "..", f"{ident}.{int(ends) + 9}.{mac}", f"x{value}", f"{ident}.{ends}.", "ü.1.2"):
        desk.browser.set_cookie("operator", forged)
        assert "generate-authcode" not in desk.browser.get("/fyers/login").text, forged
    other.browser.set_cookie("operator", value)
    assert "generate-authcode" not in other.browser.get("/fyers/login").text


def test_leaving_takes_the_cookie_away(desk: LoginDeskOfTests) -> None:
    desk.enter()
    assert desk.browser.post("/fyers/leave", data={"csrf": desk.csrf()}).status_code == 303
    assert "generate-authcode" not in desk.browser.get("/fyers/login").text
