"""The table from errors to HTTP is complete, and bodies are problem details without internals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from app import errors as e
from app.domain.status import Status
from app.web.answers import HTTP
from app.web.errors import STATUS, register


def below(kind: type[e.ServiceError]) -> Iterator[type[e.ServiceError]]:
    for child in kind.__subclasses__():
        if child.__module__ == "app.errors":
            yield child
            yield from below(child)


def test_every_error_and_every_state_has_its_answer() -> None:
    assert set(below(e.ServiceError)) == set(STATUS)
    assert set(Status) == set(HTTP)
    for kind, status in STATUS.items():
        assert (status == 503) is issubclass(kind, e.Unavailable)


def app_raising(error: Exception) -> Flask:
    app = Flask("t")
    register(app)

    @app.get("/")
    def fail() -> str:
        raise error

    return app


@pytest.mark.parametrize("kind", [k for k in STATUS if k is not e.InvalidAlert])
def test_problem_body(kind: type[e.ServiceError]) -> None:
    answer = app_raising(kind("why", retry_after_s=7)).test_client().get("/")
    body = answer.get_json(force=True)
    assert answer.status_code == body["status"] == STATUS[kind]
    assert answer.content_type == "application/problem+json"
    assert (body["code"], body["detail"], body["errors"]) == (kind.code, "why", [])
    assert body["outcome"] == ("unavailable" if STATUS[kind] == 503 else "refused")
    assert answer.headers.get("Retry-After") == ("7" if STATUS[kind] in (409, 429, 503) else None)


def test_wrong_fields_are_listed() -> None:
    answer = app_raising(e.InvalidAlert((e.FieldError("qty", "was 0"),))).test_client().get("/")
    assert answer.get_json(force=True)["errors"] == [{"field": "qty", "message": "was 0"}]


def test_an_unexpected_error_says_nothing_of_the_inside() -> None:
    answer = app_raising(RuntimeError("password=x")).test_client().get("/")
    assert answer.status_code == 500
    assert b"password" not in answer.data
    assert answer.get_json(force=True)["code"] == "internal"


def test_flask_errors_have_the_same_shape() -> None:
    client = app_raising(RuntimeError()).test_client()
    assert client.get("/none").get_json(force=True)["code"] == "not_found"
    answer = client.post("/")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
