"""`flask clients …`: what it prints, what it changes, and that a token is shown once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.alert import ClientLimits
from app.service.clients import ClientScope, Credential
from tests.unit.operator_desk import ME, Operator


def token_in(said: str) -> str:
    (token,) = [line for line in said.splitlines() if line.startswith("tvf_")]
    return token


def tokens_of(operator: Operator) -> tuple[Credential, ...]:
    assert operator.ports.clients is not None
    return operator.ports.clients.credentials()


def test_a_client_with_everything(operator: Operator) -> None:
    said = operator.said(
        *("clients", "create", "desk-2", "--scope", "orders", "--scope", "read", "--max-lots", "2"),
        *("--symbols", "nifty,BankNifty", "--expires", "2099-12-31", "--allow", "TradingView, 10.0.0.0/8"),
        *("--allow", "2001:db8::/32"),
    )
    (credential,) = tokens_of(operator)
    client = credential.client
    assert client.scopes == {ClientScope.ORDERS, ClientScope.READ}
    assert client.limits == ClientLimits(2, frozenset({"NIFTY", "BANKNIFTY"}))
    assert client.networks == ("tradingview", "10.0.0.0/8", "2001:db8::/32")
    assert client.expires_at is not None
    assert client.expires_at.isoformat() == "2099-12-31T18:30:00+00:00", "the end of that IST day"
    assert client.created_by == ME
    found = operator.ports.callers.find(token_in(said))
    assert found is not None
    assert found.client == "desk-2"


def test_a_token_is_shown_once(operator: Operator) -> None:
    token = token_in(operator.said("clients", "create", "desk-2", "--scope", "read"))
    fresh = token_in(operator.said("clients", "rotate", "desk-2", "--grace", "15m"))
    listing = operator.said("clients", "list")
    assert "2 (one until" in listing
    assert not any(t in listing or t[-8:] in listing for t in (token, fresh))


@pytest.mark.parametrize(("grace", "live"), [("90s", 2), ("15m", 2), ("1d", 2), ("0", 1)])
def test_a_rotation_s_grace(operator: Operator, grace: str, live: int) -> None:
    operator.said("clients", "create", "desk-2", "--scope", "read")
    said = operator.said("clients", "rotate", "desk-2", "--grace", grace)
    assert len(tokens_of(operator)) == live
    assert ("no other one is valid" in said) is (live == 1)


def test_revoke_and_give_the_name_again(operator: Operator) -> None:
    operator.said("clients", "create", "desk-2", "--scope", "read")
    assert "is revoked" in operator.said("clients", "revoke", "desk-2")
    assert "already" in operator.said("clients", "revoke", "desk-2")
    assert tokens_of(operator) == ()
    assert "revoked 20" in operator.said("clients", "list")
    operator.said("clients", "create", "desk-2", "--scope", "orders")
    (credential,) = tokens_of(operator)
    assert credential.client.scopes == {ClientScope.ORDERS}


def test_an_expired_client_is_shown_as_such(operator: Operator) -> None:
    operator.said("clients", "create", "desk-2", "--scope", "read", "--expires", "2099-12-31")
    (credential,) = tokens_of(operator)
    assert credential.client.expires_at is not None
    assert not credential.is_live(credential.client.expires_at)
    assert credential.is_live(credential.client.expires_at - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("create", "desk-2"), "--scope"),
        (("create", "desk-2", "--scope", "all"), "--scope"),
        (("create", "default", "--scope", "read"), "expected a name"),
        (("create", "Desk", "--scope", "read"), "expected a name"),
        (("create", "desk-2", "--scope", "read", "--max-lots", "0"), "--max-lots"),
        (("create", "desk-2", "--scope", "read", "--max-lots", "10001"), "'--max-lots': 10001 is not in"),
        (("create", "desk-2", "--scope", "read", "--symbols", ","), "'--symbols': expected words"),
        (("create", "desk-2", "--scope", "read", "--symbols", ""), "'--symbols': expected words"),
        (("create", "desk-2", "--scope", "read", "--allow", " , "), "'--allow': expected words"),
        (("create", "desk-2", "--scope", "read", "--allow", ""), "'--allow': expected words"),
        (("create", "desk-2", "--scope", "read", "--allow", "10.0.0.1/8"), "host bits"),
        (("create", "desk-2", "--scope", "read", "--allow", "nowhere"), "nowhere"),
        (("create", "desk-2", "--scope", "read", "--expires", "2020-01-01"), "not over"),
        (("create", "desk-2", "--scope", "read", "--expires", "soon"), "--expires"),
        (("rotate", "nosuch"), "no client nosuch"),
        (("rotate", "nosuch", "--grace", "15"), "--grace"),
        (("rotate", "nosuch", "--grace", "31d"), "--grace"),
        (("revoke", "nosuch"), "no client nosuch"),
    ],
)
def test_a_wrong_call_is_one_line_and_makes_nothing(
    operator: Operator, words: tuple[str, ...], reason: str
) -> None:
    assert reason in operator.refused("clients", *words)
    assert tokens_of(operator) == ()


def test_there_are_none_at_first(operator: Operator) -> None:
    assert "no clients beside" in operator.said("clients", "list")
