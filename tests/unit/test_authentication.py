"""Tokens: which are accepted, at the level of the function that decides, and what a wrong one costs."""

from __future__ import annotations

import random
import secrets
import string
from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from app.errors import NotAllowed, NotAuthenticated, StoreUnavailable, TooManyRequests
from app.service.clients import DEFAULT_CLIENT, Client, ClientScope, digest_of, new_token, signing_keys
from app.settings import Settings
from app.web.middleware.authentication import KEEP_S, Callers
from app.web.middleware.failures import FAILURES_PER_MINUTE, FREE_FAILURES, Allowance, Failures
from tests.fake_clients import FakeClients, a_client
from tests.fake_store import FakeClock

WEBHOOK, ADMIN = "the-webhook-token-of-this-test", "the-admin-token-of-this-test"
ALPHABET = string.ascii_letters + string.digits + "-_"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def clients(clock: FakeClock) -> FakeClients:
    return FakeClients(clock)


@pytest.fixture
def callers(clock: FakeClock, clients: FakeClients) -> Callers:
    settings = Settings.model_validate({"webhook_secret_token": WEBHOOK, "admin_token": ADMIN})
    return Callers(settings, clients, clock)


def request_of(token: str | None = None, address: str = "10.0.0.9") -> Request:
    headers = Headers({} if token is None else {"Authorization": f"Bearer {token}"})
    builder = EnvironBuilder(headers=headers, environ_base={"REMOTE_ADDR": address})
    return Request(builder.get_environ())


def found(callers: Callers, token: object) -> str | None:
    caller = callers.find(token)
    return None if caller is None else caller.client


def test_each_token_is_its_client_s(callers: Callers, clients: FakeClients) -> None:
    token = a_client(clients)
    assert (found(callers, WEBHOOK), found(callers, ADMIN), found(callers, token)) == (
        DEFAULT_CLIENT,
        "admin",
        "desk-2",
    )
    assert token not in repr(clients.rows)
    assert len(token) >= 43


def wrong_tokens(good: list[str], dead: list[str], rng: random.Random) -> Iterator[object]:
    """Without end: forged, cut, lengthened, changed, ended, non-ASCII and missing ones."""
    yield from (None, "", 0, 1, True, [], {}, b"", " ", "\0", "Bearer", "null")
    while True:
        token = rng.choice(good)
        at = rng.randrange(len(token))
        yield "".join(rng.choices(ALPHABET, k=len(token)))
        yield token[:at]
        yield token[at + 1 :]
        yield token + rng.choice(ALPHABET + " \n\0")
        yield token[:at] + rng.choice([c for c in ALPHABET if c != token[at]]) + token[at + 1 :]
        yield token[:at] + rng.choice("äöü漢\U0001f600\udc80") + token[at + 1 :]
        yield token.swapcase()
        yield token.encode()
        yield [token]
        yield digest_of(token)
        yield rng.choice(dead)


def test_of_100000_wrong_tokens_none_is_accepted(
    callers: Callers, clients: FakeClients, clock: FakeClock
) -> None:
    kept = [a_client(clients, f"kept-{n}") for n in range(3)]
    rotated = a_client(clients, "rotated")
    clients.rotate("rotated", digest_of(kept_new := new_token()), timedelta(minutes=5))
    replaced = a_client(clients, "replaced")
    clients.rotate("replaced", digest_of(new_token()), timedelta(0))
    expired = a_client(clients, "expired", expires_at=clock.now() + timedelta(minutes=5))
    revoked = a_client(clients, "revoked")
    clients.revoke("revoked")
    assert [found(callers, t) for t in (rotated, expired)] == ["rotated", "expired"]
    clock.advance(300)
    good = [WEBHOOK, ADMIN, kept_new, *kept]
    dead = [rotated, replaced, expired, revoked]
    rng = random.Random(11)
    tokens = wrong_tokens(good, dead, rng)
    accepted = [t for t, _ in zip(tokens, range(100_000), strict=False) if callers.find(t) is not None]
    assert accepted == []
    assert all(callers.find(t) is not None for t in good), "the good ones are good throughout"


def test_an_empty_secret_matches_nothing(clock: FakeClock) -> None:
    callers = Callers(Settings.model_validate({}), None, clock)
    assert [callers.find(t) for t in ("", " ", digest_of(""), None)] == [None] * 4


def test_a_list_of_tokens_is_kept_for_half_a_second_and_a_flood_does_not_ask_more_often(
    callers: Callers, clients: FakeClients, clock: FakeClock
) -> None:
    token = a_client(clients)
    assert found(callers, token) == "desk-2"
    clients.revoke("desk-2")
    for _ in range(1000):
        callers.find(secrets.token_urlsafe(32))
    assert clients.reads == 1
    clock.advance(KEEP_S)
    assert found(callers, token) is None
    assert clients.reads == 2
    assert KEEP_S < 1


def test_without_the_database_the_settings_tokens_work_and_others_are_neither_right_nor_wrong(
    callers: Callers, clients: FakeClients, clock: FakeClock
) -> None:
    token = a_client(clients)
    assert found(callers, token) == "desk-2"
    clients.down = True
    clock.advance(KEEP_S)
    for _ in range(100):
        with pytest.raises(StoreUnavailable):
            callers.find(token)
    assert clients.reads == 2, "a hung database is not asked for each request"
    assert (found(callers, WEBHOOK), found(callers, ADMIN)) == (DEFAULT_CLIENT, "admin")
    clients.down = False
    clock.advance(KEEP_S)
    assert found(callers, token) == "desk-2"


@pytest.mark.parametrize(
    ("scopes", "wanted", "passes"),
    [
        (("orders",), "orders", True),
        (("orders",), "read", False),
        (("read",), "read", True),
        (("read",), "orders", False),
        (("admin",), "orders", True),
        (("orders", "read"), "read", True),
    ],
)
def test_a_scope_is_needed(
    callers: Callers, clients: FakeClients, scopes: tuple[str, ...], wanted: str, passes: bool
) -> None:
    request = request_of(a_client(clients, "desk-2", *scopes))
    if passes:
        assert callers.bearer(request, ClientScope(wanted)).client == "desk-2"
    else:
        with pytest.raises(NotAllowed) as caught:
            callers.bearer(request, ClientScope(wanted))
        assert caught.value.code == "scope_missing"


def test_a_client_s_own_addresses(callers: Callers, clients: FakeClients) -> None:
    token = a_client(clients, networks=("tradingview", "2001:db8::/32"))
    for address in ("52.89.214.238", "2001:db8::5"):
        assert callers.bearer(request_of(token, address), ClientScope.READ).client == "desk-2"
    for address in ("52.89.214.239", "2001:db9::5"):
        with pytest.raises(NotAllowed):
            callers.bearer(request_of(token, address), ClientScope.READ)


def test_failures_are_refused_by_address_and_a_valid_token_never_is(
    callers: Callers, clock: FakeClock
) -> None:
    for _ in range(FREE_FAILURES):
        with pytest.raises(NotAuthenticated):
            callers.admin(request_of("wrong"))
    for _ in range(1000):
        with pytest.raises(TooManyRequests) as caught:
            callers.admin(request_of("wrong"))
        assert callers.admin(request_of(ADMIN)).is_admin
    assert caught.value.retry_after_s == 60 // FAILURES_PER_MINUTE
    with pytest.raises(NotAuthenticated):
        callers.admin(request_of("wrong", "10.0.0.10"))
    clock.advance(60 / FAILURES_PER_MINUTE)
    with pytest.raises(NotAuthenticated):
        callers.admin(request_of("wrong"))
    with pytest.raises(TooManyRequests):
        callers.admin(request_of("wrong"))


def test_one_ipv6_network_is_one_sender_and_all_that_is_no_address_another(clock: FakeClock) -> None:
    failures = Failures(clock.monotonic)
    for number in range(FREE_FAILURES):
        assert failures.count(f"2001:db8:1:2::{number:x}") is None
        assert failures.count(f"unknown {number}") is None
    assert failures.count("2001:db8:1:2:ffff::1") is not None
    assert failures.count("anything") is not None
    assert failures.count("2001:db8:1:3::1") is None
    assert failures.count("::ffff:10.0.0.1") is None


def test_memory_is_bounded_and_the_longest_silent_is_forgotten(clock: FakeClock) -> None:
    allowance = Allowance(clock.monotonic, 1, 1 / 60, keys=100)
    assert allowance.take("first") == 0
    for number in range(10_000):
        allowance.take(str(number))
        allowance.take("first")
    assert len(allowance) == 100
    assert allowance.take("first") > 0
    assert allowance.take("0") == 0


@pytest.mark.parametrize("name", ["", "default", "admin", "A", "a b", "-a", "a" * 33, "ä", "a\n"])
def test_names_that_no_client_may_have(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        Client(name, frozenset({ClientScope.READ}))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_YWJj", "a" * 200])
def test_signing_secrets_that_are_none_are_named_by_number_alone(secret: str) -> None:
    with pytest.raises(ValueError, match="secret 2 is none") as caught:
        signing_keys(f"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,{secret}")
    assert secret == "whsec_" or secret not in str(caught.value)
