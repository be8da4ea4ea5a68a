"""The register of clients on each database, and in memory for the tests that need no database: the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.domain.alert import ClientLimits
from app.errors import NotAllowed, NotFound
from app.service.clients import Client, Clients, ClientScope, digest_of, new_token
from app.settings import Settings
from app.store.engine import Database
from app.store.sql_clients import SqlClients
from app.web.middleware.authentication import Callers
from tests.fake_clients import FakeClients, a_client
from tests.integration.store_rows import NOON, Clock

HOUR = timedelta(hours=1)


@pytest.fixture(params=["memory", "sqlite_url", pytest.param("postgres_url", marks=pytest.mark.slow)])
def clients(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Clients]:
    if request.param == "memory":
        yield FakeClients(clock)
        return
    database = Database(request.getfixturevalue(request.param), clock)
    yield SqlClients(database)
    database.close()


def live(clients: Clients, clock: Clock) -> set[str]:
    return {c.digest for c in clients.credentials() if c.is_live(clock.now())}


def test_a_client_comes_back_as_it_went_in(clients: Clients) -> None:
    limits = ClientLimits(2, frozenset({"NIFTY", "BANKNIFTY"}))
    scopes = frozenset({ClientScope.ORDERS, ClientScope.READ})
    full = Client("full", scopes, limits, ("tradingview", "2001:db8::/32"), NOON + HOUR, "cli:me")
    bare = Client("bare", frozenset({ClientScope.READ}))
    clients.create(full, "d1")
    clients.create(bare, "d2")
    assert {c.digest: c.client for c in clients.credentials()} == {"d1": full, "d2": bare}
    assert [r.client for r in clients.registered()] == [bare, full]
    assert all(r.created_at == NOON and r.revoked_at is None for r in clients.registered())


def test_a_name_is_given_once_until_it_is_revoked(clients: Clients, clock: Clock) -> None:
    a_client(clients, "desk", max_lots=1)
    with pytest.raises(NotAllowed):
        a_client(clients, "desk")
    assert clients.revoke("desk") is True
    assert clients.credentials() == ()
    clock.pass_(60)
    token = a_client(clients, "desk", max_lots=2)
    assert live(clients, clock) == {digest_of(token)}
    (row,) = clients.registered()
    assert (row.revoked_at, row.client.limits.max_lots) == (None, 2)


def test_two_tokens_are_live_during_a_rotation_and_never_three(clients: Clients, clock: Clock) -> None:
    first = digest_of(a_client(clients, "desk"))
    clock.pass_(1)
    assert clients.rotate("desk", "second", HOUR) == clock.now() + HOUR
    assert live(clients, clock) == {first, "second"}
    clock.pass_(1)
    assert clients.rotate("desk", "third", HOUR) == clock.now() + HOUR
    assert live(clients, clock) == {"second", "third"}
    clock.pass_(3600)
    assert live(clients, clock) == {"third"}
    assert clients.rotate("desk", "fourth", timedelta(0)) is None
    assert live(clients, clock) == {"fourth"}


def test_a_rotation_does_not_lengthen_the_life_of_a_token(clients: Clients, clock: Clock) -> None:
    a_client(clients, "desk", expires_at=NOON + HOUR)
    clients.rotate("desk", "second", 2 * HOUR)
    assert len(live(clients, clock)) == 2
    clock.pass_(3600)
    assert live(clients, clock) == set()


def test_nothing_of_a_revoked_or_unknown_client_can_be_used_or_rotated(
    clients: Clients, clock: Clock
) -> None:
    a_client(clients, "desk")
    clients.rotate("desk", "second", HOUR)
    assert clients.revoke("desk") is True
    assert clients.revoke("desk") is False
    assert live(clients, clock) == set()
    for name in ("desk", "nosuch"):
        with pytest.raises(NotFound):
            clients.rotate(name, "third", HOUR)
    with pytest.raises(NotFound):
        clients.revoke("nosuch")
    assert clients.credentials() == ()


def test_an_id_stands_for_its_first_content_until_its_life_ends(clients: Clients, clock: Clock) -> None:
    life = timedelta(minutes=10)
    assert clients.first_content("m", "a", life) == "a"
    clock.pass_(599)
    assert clients.first_content("m", "b", life) == "a"
    assert clients.first_content("n", "b", life) == "b"
    clock.pass_(1)
    assert clients.first_content("m", "c", life) == "c"


@pytest.fixture
def two(database_url: str, clock: Clock) -> Iterator[tuple[SqlClients, SqlClients, Database]]:
    """Two instances on one database."""
    databases = [Database(database_url, clock) for _ in range(2)]
    yield SqlClients(databases[0]), SqlClients(databases[1]), databases[0]
    for database in databases:
        database.close()


def test_another_instance_refuses_a_revoked_token_within_a_second(
    two: tuple[SqlClients, SqlClients, Database], clock: Clock
) -> None:
    here, there, _ = two
    settings = Settings.model_validate({})
    callers = [Callers(settings, clients, clock) for clients in (here, there)]
    token, kept = a_client(here, "desk"), a_client(here, "kept")
    replaced = a_client(here, "replaced")
    for callers_of_one in callers:
        assert all(callers_of_one.find(t) is not None for t in (token, kept, replaced))
    here.revoke("desk")
    here.rotate("replaced", digest_of(fresh := new_token()), timedelta(0))
    clock.pass_(0.999)
    for callers_of_one in callers:
        assert [callers_of_one.find(t) for t in (token, replaced)] == [None, None]
        assert all(callers_of_one.find(t) is not None for t in (kept, fresh))


def test_of_many_at_once_one_content_stands(two: tuple[SqlClients, SqlClients, Database]) -> None:
    def first(number: int) -> str:
        return two[:2][number % 2].first_content("m", f"content {number}", HOUR)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(first, range(40)))
    assert len(found) == 1


def test_of_many_rotations_at_once_two_tokens_are_left(
    two: tuple[SqlClients, SqlClients, Database], clock: Clock
) -> None:
    a_client(two[0], "desk")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: two[:2][n % 2].rotate("desk", f"token {n}", HOUR), range(20)))
    assert len(live(two[0], clock)) == 2


def test_no_token_stands_in_the_database(two: tuple[SqlClients, SqlClients, Database]) -> None:
    here, _, database = two
    tokens = [a_client(here, "desk"), new_token()]
    here.rotate("desk", digest_of(tokens[1]), HOUR)
    with database.read() as connection:
        rows = [
            str(row)
            for name in ("api_clients", "api_tokens")
            for row in connection.execute(text(f"SELECT * FROM {name}"))
        ]
    assert len(rows) == 3
    assert not any(token.removeprefix("tvf_") in row for token in tokens for row in rows)
