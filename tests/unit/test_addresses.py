"""The addresses among the settings: what starts, what does not, and that no error quotes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from app.settings import SettingsError, load

NAMED = "https://broker.test/api/v3"


pytestmark = pytest.mark.usefixtures("bare_environment")


def line_of(name: str, value: str) -> str:
    """The one line of a start that is refused."""
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    assert caught.value.__suppress_context__
    line = str(caught.value)
    assert line.startswith(f"settings: {name.upper()}: Value error, expected ")
    assert "\n" not in line
    assert ";" not in line
    return line


@pytest.mark.parametrize("name", ["fyers_api_url", "fyers_data_url", "symbol_master_url"])
class TestWhereSecretsGo:
    @pytest.mark.parametrize(
        "url",
        [
            "http://broker.test/api/v3",
            "http://127.0.0.1.broker.test/api/v3",
            "http://localhost@broker.test/",
            "http://10.0.0.5/",
            "broker.test/api/v3",
            "//broker.test/api/v3",
            "ftp://127.0.0.1/",
            "wss://broker.test/",
            "https://",
            "https:///api/v3",
            "https://:443/api/v3",
            "https://broker.test:44x3/",
            "https://broker.test:0/",
            "https://broker.test:99999/",
            "https://[::1/",
            "https://broker.test/api /v3",
            "https://broker\n.test/",
            " ",
        ],
    )
    def test_clear_text_and_what_is_no_address_start_nothing(self, name: str, url: str) -> None:
        assert line_of(name, url).endswith("expected https:// with a host, or http:// on loopback")

    @pytest.mark.parametrize(
        "url",
        [
            NAMED,
            "HTTPS://broker.test:8443",
            "http://127.0.0.1:1/data",
            "http://127.0.0.2",
            "http://localhost:80/",
            "http://[::1]:1/",
            f" {NAMED}\n",
        ],
    )
    def test_tls_is_taken_and_loopback_without_it(self, name: str, url: str) -> None:
        assert getattr(load(**{name: url}), name) == url.strip()


def test_only_a_broker_on_loopback_may_be_hurried() -> None:
    load(settle_min_seconds=1, fyers_api_url="http://127.0.0.2:1")
    with pytest.raises(SettingsError, match="SETTLE_MIN_SECONDS"):
        load(settle_min_seconds=1, fyers_api_url="https://127.0.0.1.broker.test")


@pytest.mark.parametrize("url", ["wss://feed.test:x/", "wss://:1/", "wss://feed.test/a b", " "])
def test_the_order_socket_goes_by_the_same_rule(url: str) -> None:
    assert line_of("fyers_order_socket_url", url).endswith(
        "expected wss:// with a host, or ws:// on loopback"
    )


DATABASES = [
    "postgresql+psycopg://trader:secret@10.0.0.5:5432/orders",
    "postgresql+psycopg://trader_app@10.0.0.3/options",
    "postgresql://trader:secret@db.test/orders?sslmode=require",
    "postgresql+psycopg://postgres:@/test_7?host=%2Ftmp%2Fpg%40x",
    "postgresql+psycopg://postgres:@/test_7?host=/tmp/pg@x",
    "postgresql+psycopg://trader:p%40ss:/?#@[::1]:6432/orders",
    "postgresql+psycopg://name@server:secret@db.test/orders",
    "postgresql+psycopg://localhost/x",
    "postgresql+psycopg://",
    "sqlite:///orders.sqlite3",
    "sqlite:////data/my orders.sqlite3?timeout=2",
    "sqlite+pysqlite:///orders.sqlite3",
]


@pytest.mark.parametrize("url", DATABASES)
def test_a_database_that_the_store_can_reach_is_taken_without_blanks_around_it(url: str) -> None:
    settings = load(database_url=f" {url}\n")
    assert settings.url == url
    engine = create_engine(settings.url)
    assert engine.dialect.driver == ("pysqlite" if settings.is_sqlite else "psycopg")
    assert engine.url.host is None or "@" not in engine.url.host
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://trader:p@ss:Secret9@10.0.0.5/orders",
        "postgresql+psycopg://trader:p@Secret9@10.0.0.5/orders",
        "postgresql+psycopg://trader:p@ss/Secret9@10.0.0.5/orders",
        "postgresql+psycopg://trader:1?p@Secret9@10.0.0.5/orders",
        "postgresql+psycopg://trader:Secret9@10.0.0.5:54x2/orders",
        "postgresql+psycopg://trader:Secret9@10.0.0.5:/orders",
        "postgresql+psycopg://trader:Secret9@10.0.0.5:0/orders",
        "postgresql+psycopg://trader:Secret9@10.0.0.5:65536/orders",
        "postgresql+psycopg://trader:Secret9@a:1,b:2/orders",
        "postgresql+psycopg:/trader:Secret9@10.0.0.5/orders",
        "postgres://trader:Secret9@10.0.0.5/orders",
        "postgresql+asyncpg://trader:Secret9@10.0.0.5/orders",
        "postgresql+psycopg2://trader:Secret9@10.0.0.5/orders",
        "mysql://trader:Secret9@10.0.0.5/orders",
        "trader:Secret9@10.0.0.5/orders",
        "SQLite:///Secret9",
        "sqlite+aiosqlite:///Secret9",
        "sqlite://Secret9/orders",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///?cache=shared",
        "sqlite:///file:Secret9?mode=memory&uri=true",
        " ",
    ],
)
def test_any_other_is_a_line_that_says_what_is_taken_and_not_what_was_given(url: str) -> None:
    line = line_of("database_url", url)
    assert "expected sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME" in line
    assert "Secret9" not in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://:Secret9@10.0.0.4:63x9/0",
        "redis://:Secret9@10.0.0.4:99999/0",
        "redis://:Secret9/x@10.0.0.4:6379/0",
        "redis://:Secret9#x@10.0.0.4:6379/0",
        "redis://[Secret9/0",
        "http://10.0.0.4:6379/Secret9",
        "10.0.0.4:6379",
    ],
)
def test_a_redis_that_the_library_cannot_divide_is_a_line_too(url: str) -> None:
    assert "Secret9" not in line_of("redis_url", url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://u:p@ss@h:6379/0?timeout=1",
        "unix:///run/redis.sock?db=1",
        " redis://h:1\n",
    ],
)
def test_the_redis_that_are_taken(url: str) -> None:
    assert load(redis_url=url).redis_url == url.strip()


def test_reading_the_settings_loads_neither_of_the_libraries() -> None:
    code = (
        "import sys; from app.settings import load; "
        "load(database_url='postgresql+psycopg://h/d', redis_url='redis://h', instance_dir=sys.argv[1]); "
        "print({'sqlalchemy', 'redis'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path.cwd())],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
