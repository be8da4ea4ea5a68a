"""What feeds the watch for leaks: each kind of place at the one point that all of it passes."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient, FlaskCliRunner
from opentelemetry.sdk import trace
from pydantic import SecretStr

from app.telemetry.logging import JsonLine
from app.telemetry.secrets import Secrets
from tests.leak_watch import SECRET_SETTINGS, WATCH, Hit, Kind, Watch

Original = Callable[..., Any]


class LeakFoundError(AssertionError):
    """A secret of the suite stands where none may."""

    def __init__(self, hits: list[Hit]) -> None:
        super().__init__("a secret is left behind:\n" + "\n".join(f"  {h}" for h in hits[:20]))


def install(watch: Watch = WATCH) -> pytest.MonkeyPatch:
    """Until `undo` of what it gives."""
    patch = pytest.MonkeyPatch()
    _answers(watch, patch)
    _processes(watch, patch)
    _inside(watch, patch)
    return patch


def _around(patch: pytest.MonkeyPatch, owner: Any, name: str, make: Callable[[Original], Original]) -> None:
    original = getattr(owner, name)
    patch.setattr(owner, name, wraps(original)(make(original)))


def _answers(watch: Watch, patch: pytest.MonkeyPatch) -> None:
    """Of a service's port over HTTP, whichever client asks; and of an app in this process."""

    def asking(original: Original) -> Original:
        def putrequest(self: Any, method: str, url: str, *rest: Any, **more: Any) -> Any:
            self.asked = f"{method} {url.partition('?')[0]}"
            return original(self, method, url, *rest, **more)

        return putrequest

    def answered(original: Original) -> Original:
        def getresponse(self: Any) -> Any:
            answer = original(self)
            if watch.is_served(self.port):
                answer.asked = getattr(self, "asked", "?")
                watch.saw(Kind.ANSWER, answer.asked, repr(answer.getheaders()))
            return answer

        return getresponse

    def read(original: Original) -> Original:
        def reading(self: Any, *rest: Any) -> Any:
            data = original(self, *rest)
            if (asked := getattr(self, "asked", None)) is not None and data:
                watch.saw(Kind.ANSWER, asked, data)
            return data

        return reading

    def opened(original: Original) -> Original:
        def opening(self: Any, *rest: Any, **more: Any) -> Any:
            answer = original(self, *rest, **more)
            head = repr(list(answer.headers)).encode()
            place = f"{answer.request.method} {answer.request.path}"
            watch.saw(Kind.ANSWER, place, head + b"\n" + answer.get_data())
            return answer

        return opening

    _around(patch, http.client.HTTPConnection, "putrequest", asking)
    _around(patch, http.client.HTTPConnection, "getresponse", answered)
    _around(patch, http.client.HTTPResponse, "read", read)
    _around(patch, FlaskClient, "open", opened)


def _processes(watch: Watch, patch: pytest.MonkeyPatch) -> None:
    """What commands print: the service's own, in this process or in one of their own."""

    def run(original: Original) -> Original:
        def running(*rest: Any, **more: Any) -> Any:
            done = original(*rest, **more)
            words = [done.args] if isinstance(done.args, str) else [str(w) for w in done.args]
            at = next((n for n, w in enumerate(words) if w.startswith("app.")), None)
            if at is not None:
                watch.settings(more.get("env") or {})
                for text in (done.stdout, done.stderr):
                    watch.saw(Kind.OUTPUT, _command(words[at + 1 :]), text or b"")
            return done

        return running

    def invoke(original: Original) -> Original:
        def invoking(self: Any, *rest: Any, **more: Any) -> Any:
            done = original(self, *rest, **more)
            words = more.get("args") or next((r for r in rest if isinstance(r, list | tuple)), ())
            watch.saw(Kind.OUTPUT, _command([str(w) for w in words]), done.output)
            return done

        return invoking

    _around(patch, subprocess, "run", run)
    _around(patch, FlaskCliRunner, "invoke", invoke)


def _command(words: list[str]) -> str:
    return " ".join(words[:2])


def _inside(watch: Watch, patch: pytest.MonkeyPatch) -> None:
    """Of a service in this process: its settings, its log lines as they are written, its spans."""

    def settings(original: Original) -> Original:
        def adding(self: Any, given: Any) -> Any:
            values = {name: getattr(given, name, None) for name in SECRET_SETTINGS}
            watch.settings({n: _plain(v) for n, v in values.items() if v})
            return original(self, given)

        return adding

    def line(original: Original) -> Original:
        def formatting(self: Any, record: Any) -> Any:
            text = original(self, record)
            watch.saw(Kind.LOG, "line", text)
            return text

        return formatting

    def span(original: Original) -> Original:
        def ending(self: Any, *rest: Any, **more: Any) -> Any:
            done = original(self, *rest, **more)
            said = [
                self.name,
                dict(self.attributes or {}),
                [(e.name, dict(e.attributes or {})) for e in self.events],
            ]
            watch.saw(Kind.TRACE, "span", repr((said, self.status.description)))
            return done

        return ending

    _around(patch, Secrets, "add_settings", settings)
    _around(patch, JsonLine, "format", line)
    _around(patch, trace.Span, "end", span)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def look_at_database(url: str, watch: Watch = WATCH) -> None:
    """Every row of every table of a Postgres database, as it is written out."""
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            for name in inspect(connection).get_table_names():
                rows = connection.execute(text(f'SELECT * FROM "{name}"')).all()
                watch.saw(Kind.DATABASE, f"table {name}", repr(rows))
    except OperationalError:  # the test has ended or dropped its database: nothing is left of it
        pass
    finally:
        engine.dispose()


def judge(item: pytest.Item, directory: Path | None) -> None:
    """Raises LeakFoundError. What pytest captured of stdout and stderr belongs to the test, too."""
    for when, stream, text in item._report_sections:
        if stream in ("stdout", "stderr"):
            WATCH.saw(Kind.OUTPUT, f"{stream} of {when}", text)
    if hits := WATCH.hits(directory):
        raise LeakFoundError(hits)
