"""The login in a browser and as JSON, against the simulated broker."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.web.fyers_login import CSP
from tests.unit.login_desk import ADMIN, LoginDeskOfTests, NewDesk


@pytest.fixture
def desk(new_desk: NewDesk) -> LoginDeskOfTests:
    return new_desk()


def test_the_whole_login_in_a_browser(desk: LoginDeskOfTests) -> None:
    token = desk.logged_in()
    assert token in desk.sim.tokens._access
    page = desk.browser.get("/fyers/login").text
    assert "valid until 25 Nov 2026 06:00 IST" in page
    assert token not in page
    assert desk.notifier.notes == ["token_renewed"]


def test_the_link_names_the_app_and_the_callback_and_no_secret(desk: LoginDeskOfTests) -> None:
    desk.enter()
    query = parse_qs(urlsplit(desk.link()).query)
    assert query["client_id"] == [desk.sim.tokens.app_id]
    assert query["redirect_uri"] == ["https://trader.example/fyers/callback"]
    assert query["response_type"] == ["code"]
    assert "simsecret" not in desk.link()
    assert query["state"] != parse_qs(urlsplit(desk.link()).query)["state"], "each page has its own state"


@pytest.mark.parametrize("wrong", ["", "x", "other", "changed"])
def test_a_state_that_is_not_this_session_s_is_refused_and_the_code_is_not_used(
    desk: LoginDeskOfTests, wrong: str
) -> None:
    desk.enter()
    back = desk.at_fyers(desk.link())
    own = parse_qs(urlsplit(back).query)["state"][0]
    if wrong == "other":
        stranger = desk.app.test_client()
        desk.enter(stranger)
        state = parse_qs(urlsplit(desk.link(stranger)).query)["state"][0]
    else:
        state = own[:-1] + ("0" if own[-1] != "0" else "1") if wrong == "changed" else wrong
    answer = desk.browser.get(back.replace(own, state))
    assert (answer.status_code, "state_mismatch" in answer.text) == (403, True)
    assert desk.tokens.load() is None
    assert desk.sim.ledger.counts.get("POST /validate-authcode", 0) == 0
    assert desk.browser.get(back).status_code == 303, "the true one is still good"


def test_a_state_counts_once(desk: LoginDeskOfTests) -> None:
    desk.enter()
    back = desk.at_fyers(desk.link())
    assert desk.browser.get(back).status_code == 303
    again = desk.browser.get(back)
    assert (again.status_code, "state_used" in again.text) == (403, True)
    assert desk.sim.ledger.counts["POST /validate-authcode"] == 1


def test_a_state_ends_after_ten_minutes(desk: LoginDeskOfTests) -> None:
    desk.enter()
    back = desk.at_fyers(desk.link())
    desk.sim.advance(601)
    answer = desk.browser.get(back)
    assert (answer.status_code, "state_mismatch" in answer.text) == (403, True)


def test_a_callback_without_a_session_is_refused(desk: LoginDeskOfTests) -> None:
    desk.enter()
    back = desk.at_fyers(desk.link())
    answer = desk.app.test_client().get(back)
    assert answer.status_code == 401
    assert desk.tokens.load() is None


def test_a_callback_that_says_no_is_told_as_such(desk: LoginDeskOfTests) -> None:
    desk.enter()
    answer = desk.browser.get(desk.at_fyers(desk.link()).replace("s=ok", "s=error"))
    assert (answer.status_code, "login_not_confirmed" in answer.text) == (422, True)


def test_a_code_is_good_once(desk: LoginDeskOfTests) -> None:
    code = desk.sim.issue_auth_code()
    first = desk.bearer("POST", "/generate-token", {"auth_code": code})
    assert first.status_code == 200
    assert first.json["ends_at"] == "2026-11-25T06:00:00.000+05:30"
    assert first.json["can_refresh"] is True
    again = desk.bearer("POST", "/generate-token", {"auth_code": code})
    assert (again.status_code, again.json["code"]) == (422, "auth_code_invalid")


def test_the_whole_pasted_address_works_as_well(desk: LoginDeskOfTests) -> None:
    url = desk.bearer("GET", "/auth-url").json["auth_url"]
    back = "https://trader.example" + desk.at_fyers(url)
    assert desk.bearer("POST", "/generate-token", {"auth_code": back}).status_code == 200
    assert desk.tokens.current(desk.clock.now())


def test_a_wrong_secret_is_named_by_its_setting(new_desk: NewDesk) -> None:
    desk = new_desk(secret="wrong-secret")
    answer = desk.bearer("POST", "/generate-token", {"auth_code": desk.sim.issue_auth_code()})
    assert (answer.status_code, answer.json["code"]) == (422, "app_secret_wrong")
    assert "FYERS_SECRET_ID" in answer.json["detail"]
    assert "wrong-secret" not in answer.text


@pytest.mark.parametrize("body", [{}, {"auth_code": ""}, {"auth_code": "a b"}, {"auth_code": "x" * 5000}])
def test_what_is_no_code_is_never_sent(desk: LoginDeskOfTests, body: dict[str, str]) -> None:
    answer = desk.bearer("POST", "/generate-token", body)
    assert (answer.status_code, answer.json["code"]) == (422, "auth_code_missing")
    assert desk.sim.ledger.counts.get("POST /validate-authcode", 0) == 0


def test_a_broker_that_is_not_there_is_a_503_and_stores_nothing(desk: LoginDeskOfTests) -> None:
    code = desk.sim.issue_auth_code()
    desk.sim.server.close()
    answer = desk.bearer("POST", "/generate-token", {"auth_code": code})
    assert answer.status_code == 503
    assert code not in answer.text
    assert desk.tokens.load() is None


def test_refresh_with_the_pin_keeps_the_refresh_token(desk: LoginDeskOfTests) -> None:
    first = desk.logged_in()
    desk.sim.advance(3600)
    answer = desk.bearer("POST", "/refresh-token", {"pin": "1234"})
    assert answer.status_code == 200, answer.text
    assert answer.json["can_refresh"] is True
    assert desk.tokens.current(desk.clock.now()) not in (None, first)


def test_refresh_takes_the_pin_of_the_settings(new_desk: NewDesk) -> None:
    desk = new_desk(fyers_pin="1234")
    desk.logged_in()
    assert desk.bearer("POST", "/refresh-token", {}).status_code == 200


def test_refresh_that_fyers_no_longer_allows_has_a_clear_answer(desk: LoginDeskOfTests) -> None:
    nothing = desk.bearer("POST", "/refresh-token", {"pin": "1234"})
    assert (nothing.status_code, nothing.json["code"]) == (422, "no_refresh_token")
    desk.logged_in()
    desk.sim.tokens._refresh.clear()
    refused = desk.bearer("POST", "/refresh-token", {"pin": "1234"})
    assert (refused.status_code, refused.json["code"]) == (422, "refresh_refused")
    assert "log in anew" in refused.json["detail"]


def test_logout_revokes_here_and_at_the_broker(desk: LoginDeskOfTests) -> None:
    token = desk.logged_in()
    assert desk.browser.post("/logout", data={"csrf": desk.csrf()}).status_code == 303
    assert desk.tokens.current(desk.clock.now()) is None
    assert token not in desk.sim.tokens._access
    assert desk.bearer("POST", "/logout").json == {"status": "logged_out", "was_logged_in": False}


def test_a_strict_policy_that_the_page_keeps(desk: LoginDeskOfTests) -> None:
    desk.logged_in()
    answer = desk.browser.get("/fyers/login")
    assert answer.headers["Content-Security-Policy"] == CSP
    assert "default-src 'none'" in CSP
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in CSP
    assert "<script" not in answer.text
    assert not re.search(r"\s(on\w+|style)=", answer.text)
    labels, inputs = (
        re.findall(r'<label for="(\w+)"', answer.text),
        re.findall(r'<input id="(\w+)"', answer.text),
    )
    assert sorted(labels) == sorted(inputs) == ["auth_code", "pin"]
    assert '<html lang="en">' in answer.text


def test_an_unreadable_token_does_not_take_the_page_away(desk: LoginDeskOfTests, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_bytes(b"nonsense")
    desk.enter()
    assert "cannot be read: the stored token is damaged" in desk.browser.get("/fyers/login").text
    assert desk.logged_in()


def test_no_secret_in_any_log(
    desk: LoginDeskOfTests, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = desk.logged_in()
    desk.bearer("POST", "/refresh-token", {"pin": "1234"})
    code = desk.sim.issue_auth_code()
    desk.sim.tokens._codes.clear()
    desk.bearer("POST", "/generate-token", {"auth_code": code})
    out, err = capfd.readouterr()
    said = out + err + caplog.text
    assert "auth_code_invalid" in said
    for secret in (token, code, ADMIN, "simsecret", token.split(".")[2]):
        assert secret not in said


def test_a_large_body_is_refused(desk: LoginDeskOfTests) -> None:
    assert desk.bearer("POST", "/generate-token", {"auth_code": "x" * 20_000}).status_code == 413
