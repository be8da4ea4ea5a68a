"""The login's calls at Fyers: what each answer means, and that an error quotes nothing that was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from time import monotonic

import pytest

from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import FyersLogin, code_of, record_of
from app.domain.deadline import Deadline
from app.errors import BrokerReadFailed, LoginRefused
from tests.fyers_sim import FyersSim
from tests.simulator.faults import make_fault
from tests.unit.login_desk import MORNING

CODE = "POST /validate-authcode"


@pytest.fixture
def login(login_sim: FyersSim) -> Iterator[FyersLogin]:
    with closing(
        FyersClient(login_sim.base_url, login_sim.data_url, connect_timeout_s=5, read_timeout_s=5)
    ) as client:
        yield FyersLogin(client, "SIMAPP-200", "simsecret", "http://127.0.0.1/fyers/callback")


def soon(seconds: float = 5) -> Deadline:
    return Deadline(monotonic() + seconds)


@pytest.mark.parametrize(
    "fault",
    ["html_200", "html_502", "html_503", "http_500", "cloudflare_403", "truncated", "reset", "disconnect"],
)
def test_an_answer_that_says_neither_yes_nor_no_sends_the_code_once(
    login_sim: FyersSim, login: FyersLogin, fault: str
) -> None:
    login_sim.faults.set(CODE, fault)
    code = login_sim.issue_auth_code()
    with pytest.raises(BrokerReadFailed) as caught:
        login.exchange_code(code, soon(), MORNING)
    assert code not in str(caught.value)
    assert login_sim.ledger.counts[CODE] == 1


def test_a_hung_login_ends_at_its_deadline(login_sim: FyersSim, login: FyersLogin) -> None:
    login_sim.faults.set(CODE, "hang", seconds=30)
    began = monotonic()
    with pytest.raises(BrokerReadFailed, match="out of time"):
        login.exchange_code(login_sim.issue_auth_code(), soon(0.3), MORNING)
    assert monotonic() - began < 2


def said(login_sim: FyersSim, status: int, **body: object) -> None:
    fault = make_fault("custom", status=status, body=json.dumps(body))
    login_sim.faults.queue(CODE, fault)


@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_no_is_a_no_whatever_the_http_status(login_sim: FyersSim, login: FyersLogin, status: int) -> None:
    said(login_sim, status, s="error", code=-437, message="invalid auth code")
    with pytest.raises(LoginRefused) as caught:
        login.exchange_code("x", soon(), MORNING)
    assert caught.value.code == "auth_code_invalid"


def test_an_unknown_no_keeps_its_number_and_words_but_never_what_was_sent(
    login_sim: FyersSim, login: FyersLogin
) -> None:
    said(login_sim, 400, s="error", code=-999, message="out of order")
    with pytest.raises(LoginRefused, match="-999 out of order"):
        login.exchange_code("the-code", soon(), MORNING)
    said(login_sim, 400, s="error", code=-999, message="bad: the-code")
    with pytest.raises(LoginRefused) as caught:
        login.exchange_code("the-code", soon(), MORNING)
    assert "the-code" not in str(caught.value)


@pytest.mark.parametrize("token", [None, "", 5, "a\nb", "ü", "x" * 5000])
def test_a_yes_without_a_token_that_can_stand_in_a_header_is_none(
    login_sim: FyersSim, login: FyersLogin, token: object
) -> None:
    said(login_sim, 200, s="ok", code=200, access_token=token)
    with pytest.raises(BrokerReadFailed, match="no usable access_token"):
        login.exchange_code("x", soon(), MORNING)


def test_a_login_without_a_refresh_token_is_a_login(login_sim: FyersSim, login: FyersLogin) -> None:
    said(login_sim, 200, s="ok", code=200, access_token="plain")
    found = login.exchange_code("x", soon(), MORNING)
    assert (found.access_token, found.refresh_token, found.refresh_ends_at) == ("plain", "", None)


def test_a_logout_with_a_dead_token_has_nothing_left_to_do(login_sim: FyersSim, login: FyersLogin) -> None:
    login.logout("dead", soon())
    login_sim.faults.set("POST /logout", "html_502")
    with pytest.raises(BrokerReadFailed, match="forgotten here"):
        login.logout("dead", soon())


def test_the_times_are_the_token_s_own_and_else_the_next_six_o_clock(login_sim: FyersSim) -> None:
    token = login_sim.tokens.issue_access_token()
    late = MORNING + timedelta(minutes=7)
    found = record_of("SIMAPP-200", f"SIMAPP-200:{token}", late, "refresh")
    assert (found.access_token, found.obtained_at) == (token, MORNING)
    assert found.ends_at.isoformat() == "2026-11-25T00:30:00+00:00"
    assert found.refresh_ends_at == late + timedelta(days=15)
    plain = record_of("SIMAPP-200", "plain", late)
    assert (plain.obtained_at, plain.ends_at) == (late, found.ends_at)


@pytest.mark.parametrize(
    "pasted",
    [
        "the-code",
        "  the-code\n",
        "http://127.0.0.1/cb?s=ok&code=200&auth_code=the-code&state=x",
        "s=ok&code=200&auth_code=the-code",
    ],
)
def test_what_a_person_pastes(pasted: str) -> None:
    assert code_of(pasted) == "the-code"
