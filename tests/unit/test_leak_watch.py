"""The search for leaked secrets can fail: a secret planted in each kind of place, in each spelling, is found."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from flask import Flask, redirect
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from app.settings import Settings
from app.telemetry.logging import JsonLine
from tests import leak_hooks
from tests.leak_watch import SECRET_SETTINGS, Kind, Watch

ROOT = Path(__file__).parents[2]
SECRET = f"planted/&{os.urandom(9).hex()}+x"


@dataclass
class FakeServed:
    """A service that has been started and has ended."""

    directory: Path
    port: int = 1
    env: dict[str, str] = field(default_factory=dict)
    ended: bool = True

    @property
    def instance(self) -> Path:
        return self.directory / "instance"


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    made.secret("planted", SECRET)
    patch = leak_hooks.install(made)
    yield made
    patch.undo()


def said(watch: Watch, directory: Path | None = None) -> str:
    words = "\n".join(str(h) for h in watch.hits(directory))
    assert SECRET not in words
    return words


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "URL-encoded": lambda s: quote(s, safe=""),
    "as HTML": lambda s: s.replace("&", "&amp;"),
    "as JSON": lambda s: s.replace("&", "\\u0026"),
    "in hex": lambda s: s.encode().hex(),
    "base64 at 0": lambda s: base64.b64encode(f"abc{s}de".encode()).decode(),
    "base64 at 1": lambda s: base64.b64encode(f"a{s}".encode()).decode(),
    "base64 at 2": lambda s: base64.urlsafe_b64encode(f"ab{s}cd".encode()).decode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_in_each_spelling(watch: Watch, name: str) -> None:
    watch.saw(Kind.LOG, "here", f"before {SPELLINGS[name](SECRET)} after")
    assert said(watch) == f"log here: planted, {name}"
    watch.saw(Kind.LOG, "here", "before and after")
    assert said(watch) == ""


def over_http(_: Path, watch: Watch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f'queue_depth{{name="{SECRET}"}} 1\n'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        watch.service(FakeServed(Path("/nowhere"), port=server.server_port))
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        connection.request("GET", "/metrics?x=1")
        connection.getresponse().read()
        connection.close()
        thread.join()


def planted_app() -> Flask:
    app = Flask("planted")
    app.add_url_rule("/body", view_func=lambda: SECRET, endpoint="body")
    app.add_url_rule("/head", view_func=lambda: redirect(f"/?code={quote(SECRET, safe='')}"), endpoint="head")

    @app.cli.command("tokens")
    @click.argument("word")
    def tokens(word: str) -> None:
        click.echo(SECRET)

    return app


def in_a_log_line(_: Path, __: Watch) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "logged in with %s", (SECRET,), None)
    assert "planted" in JsonLine().format(record)


def in_a_span(_: Path, __: Watch) -> None:
    span = TracerProvider().get_tracer("t").start_span("call")
    span.set_attribute("url", f"http://x/?token={quote(SECRET)}")
    span.end()


def in_a_process(_: Path, __: Watch) -> None:
    code = f"import sys; print({SECRET!r}, file=sys.stderr)"
    subprocess.run(
        [sys.executable, "-c", code, "app.wsgi", "tokens", "show"], capture_output=True, check=True
    )


def in_a_service_s_log(directory: Path, watch: Watch) -> None:
    served = FakeServed(directory / "served")
    served.instance.mkdir(parents=True)
    (served.directory / "service.log").write_text(json.dumps({"event": SECRET}))
    (served.instance / "tokens.json").write_text(json.dumps({"access_token": SECRET}))
    watch.service(served)


def in_sqlite(directory: Path, __: Watch) -> None:
    with sqlite3.connect(directory / "orders.sqlite3") as database:
        database.execute("CREATE TABLE audit (detail TEXT)")
        database.execute("INSERT INTO audit VALUES (?)", (json.dumps({"reason": SECRET}),))
    database.close()


PLACES: list[tuple[Callable[[Path, Watch], object], set[str]]] = [
    (over_http, {"answer GET /metrics"}),
    (lambda _, __: planted_app().test_client().get("/body"), {"answer GET /body"}),
    (lambda _, __: planted_app().test_client().get("/head"), {"answer GET /head"}),
    (
        lambda _, __: planted_app().test_cli_runner().invoke(args=["tokens", "show"]),
        {"output tokens show"},
    ),
    (in_a_log_line, {"log line"}),
    (in_a_span, {"trace span"}),
    (in_a_process, {"output tokens show"}),
    (in_a_service_s_log, {"file service.log", "file instance/tokens.json"}),
    (in_sqlite, {"database orders.sqlite3"}),
]


@pytest.mark.parametrize(("plant", "places"), PLACES)
def test_in_each_kind_of_place(
    watch: Watch, tmp_path: Path, plant: Callable[[Path, Watch], object], places: set[str]
) -> None:
    plant(tmp_path, watch)
    assert {line.partition(":")[0] for line in said(watch, tmp_path).splitlines()} == places


def test_in_postgres(watch: Watch, postgres_url: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE planted (words jsonb)"))
        connection.execute(
            text("INSERT INTO planted VALUES (CAST(:w AS jsonb))"), {"w": json.dumps([SECRET])}
        )
    engine.dispose()
    leak_hooks.look_at_database(postgres_url, watch)
    assert said(watch) == "database table planted: planted, plain"


def test_a_clients_token_by_its_looks_but_not_where_it_is_shown_once(watch: Watch) -> None:
    token = f"tvf_{base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip('=')}"
    watch.saw(Kind.OUTPUT, "clients create", f"its token, shown once: {token}")
    assert said(watch) == ""
    watch.saw(Kind.OUTPUT, "clients list", token)
    assert said(watch) == "output clients list: client token, plain"


def test_what_the_first_start_made_is_a_secret_everywhere_but_in_its_own_file(
    watch: Watch, tmp_path: Path
) -> None:
    served = FakeServed(tmp_path)
    served.instance.mkdir()
    made = os.urandom(20).hex()
    (served.instance / "admin_token").write_text(f"{made}\n")
    watch.service(served)
    assert said(watch) == ""
    (tmp_path / "service.log").write_text(f"?token={made}")
    watch.service(served)
    assert said(watch) == "file service.log: admin_token, plain"


def test_a_running_service_is_read_when_it_has_ended(watch: Watch, tmp_path: Path) -> None:
    served = FakeServed(tmp_path, env={"ADMIN_TOKEN": SECRET[::-1]}, ended=False)
    (tmp_path / "service.log").write_text(SECRET[::-1])
    watch.service(served)
    assert said(watch) == ""
    served.ended = True
    assert said(watch) == "file service.log: admin_token, plain"


def test_a_secret_in_a_path_is_not_said(watch: Watch) -> None:
    watch.saw(Kind.ANSWER, f"GET /api/{quote(SECRET, safe='')}", SECRET)
    assert said(watch) == "answer GET /api/(planted): planted, plain"


def test_settings_give_their_parts_and_the_passwords_of_addresses(watch: Watch) -> None:
    a, b, c, d = (os.urandom(8).hex() for _ in range(4))
    watch.settings(
        {
            "WEBHOOK_HMAC_SECRETS": f"whsec_{a},whsec_{b}",
            "DATABASE_URL": f"postgresql://x:{c}@h/db",
            "NOTIFY_URLS": f"mailto://me:{d}@example.com",
            "RATE_LIMIT_WEBHOOK": "60 per minute",
        }
    )
    for secret in (a, b, c, d):
        watch.saw(Kind.LOG, secret[:4], secret)
    watch.saw(Kind.LOG, "no", "postgresql://x:***@h/db 60 per minute")
    assert len(said(watch).splitlines()) == 4


def test_every_secret_setting_is_known_to_the_watch() -> None:
    secret = {name for name, kind in Settings.model_fields.items() if kind.annotation is SecretStr}
    assert len(secret) > 6
    assert secret <= set(SECRET_SETTINGS)


PLANTED = """
import os
import pathlib
from tests.leak_watch import WATCH

def test_leaks(tmp_path):
    value = os.urandom(12).hex()
    WATCH.secret("planted", value)
    (tmp_path / "service.log").write_text(value)
    pathlib.Path({kept!r}).write_text(value)

def test_does_not(tmp_path):
    (tmp_path / "service.log").write_text("nothing")
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_test_in_whose_time_it_came_fails(tmp_path: Path, workers: str) -> None:
    kept, file = tmp_path / "value", tmp_path / "test_planted.py"
    file.write_text(PLANTED.format(kept=str(kept)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")),
            *("-n", workers, "--basetemp", str(tmp_path / "inner"), str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "ERROR ::test_leaks" in done.stdout
    assert "database service.log: planted, plain" in done.stdout
    assert kept.read_text() not in done.stdout
