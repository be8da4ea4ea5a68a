"""The table from errors to HTTP is complete, and bodies are problem details without internals."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from app import errors as e
from app.domain.status import Status
from app.web.answers import HTTP
from app.web.errors import STATUS, register
from app.web.schemas import AlertBody
from tests.unit.web_desk import ALERT, TOKEN, WebDesk


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


def is_problem(answer: Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.get_json(force=True)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), body
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path, max_content_length=LIMIT)


LIMIT = 1024
ROUTES = [
    ("/webhook", {"POST"}),
    ("/api/v1/orders", {"GET", "POST"}),
    ("/api/v1/orders/X", {"GET"}),
    ("/api/v1/contracts", {"GET"}),
    ("/api/v1/check", {"POST"}),
    ("/api/v1/refused", {"GET"}),
    ("/healthz", {"GET"}),
    ("/readyz", {"GET"}),
    ("/readyz/orders", {"GET"}),
    ("/openapi.json", {"GET"}),
]


@pytest.mark.parametrize(("path", "methods"), ROUTES)
def test_another_method_is_told_which_ones_there_are(desk: WebDesk, path: str, methods: set[str]) -> None:
    allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        answer = desk.client.open(path, method=method)
        assert answer.status_code == 405
        assert {m.strip() for m in answer.headers["Allow"].split(",")} == allowed
        if method == "HEAD":
            assert answer.data == b""
        else:
            is_problem(answer, 405, "method_not_allowed")
    options = desk.client.options(path)
    assert (options.status_code, options.data) == (200, b"")
    assert {m.strip() for m in options.headers["Allow"].split(",")} == allowed
    assert desk.broker.calls == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_head_is_get_without_the_body(desk: WebDesk, path: str) -> None:
    head, whole = desk.client.head(path), desk.client.get(path)
    assert (head.status_code, head.data) == (whole.status_code, b"")
    assert head.headers["Content-Length"] == str(len(whole.data))


@pytest.mark.parametrize(
    "path", ["/", "/webhook/", "/Webhook", "/api/v1", "/api/v1/orders/a/b", "/%00", "/%ff"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_problem_too(desk: WebDesk, method: str, path: str) -> None:
    is_problem(desk.client.open(path, method=method), 404, "not_found")


def sized(size: int) -> bytes:
    """A good alert of exactly that many bytes."""
    body = json.dumps({"token": TOKEN, **ALERT}).encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("path", ["/webhook", "/api/v1/orders", "/api/v1/check"])
def test_a_body_is_bounded_to_the_byte(desk: WebDesk, path: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert desk.client.post(path, data=sized(LIMIT), headers=headers).status_code == 200
    sent = len(desk.broker.ledger)
    is_problem(desk.client.post(path, data=sized(LIMIT + 1), headers=headers), 413, "too_large")
    assert len(desk.broker.ledger) == sent
    (_, refusal) = desk.store.data.refusals[-1]
    assert (refusal.status, refusal.code) == (413, "too_large")


class Endless(io.RawIOBase):
    """A body that never ends, and counts what was taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.taken += len(buffer)
        buffer[:] = b" " * len(buffer)
        return len(buffer)


def streamed(desk: WebDesk, stream: Any, length: str | None, *, chunked: bool = False) -> Response:
    """A request whose announced length is what we say; `chunked` as gunicorn marks a stream that has an end."""
    environ = create_environ("/webhook", method="POST")
    environ.pop("CONTENT_LENGTH", None)
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    environ["wsgi.input"] = stream
    environ.pop("wsgi.input_terminated", None)  # its presence counts, not its value
    if chunked:
        environ["wsgi.input_terminated"] = True
    return Response.from_app(desk.app, environ)


def test_a_body_of_no_announced_length_is_read_up_to_the_bound_only(desk: WebDesk) -> None:
    stream = Endless()
    assert 400 <= streamed(desk, stream, None, chunked=True).status_code < 500
    assert 0 < stream.taken <= LIMIT + 1
    assert streamed(desk, io.BytesIO(sized(LIMIT)), None, chunked=True).status_code == 200


def test_a_body_of_no_announced_length_is_not_cut_but_refused(desk: WebDesk) -> None:
    is_problem(streamed(desk, io.BytesIO(sized(LIMIT + 1)), None, chunked=True), 413, "too_large")
    is_problem(streamed(desk, Endless(), None, chunked=True), 413, "too_large")


def test_an_announced_length_over_the_bound_is_refused_unread(desk: WebDesk) -> None:
    stream = Endless()
    is_problem(streamed(desk, stream, str(LIMIT + 1)), 413, "too_large")
    assert stream.taken == 0


@pytest.mark.parametrize(
    ("length", "code"),
    [
        ("10", "malformed_body"),  # shorter than the body: the rest is another request's business
        (str(LIMIT), "bad_request"),  # longer than the body: the sender hung up
        (None, "malformed_body"),  # neither a length nor chunked: no body, by HTTP
        ("-1", "malformed_body"),
        ("ten", "malformed_body"),
    ],
)
def test_a_length_that_lies_is_a_400(desk: WebDesk, length: str | None, code: str) -> None:
    is_problem(streamed(desk, io.BytesIO(sized(500)), length), 400, code)
    assert desk.broker.calls == []


def test_an_idempotency_key_may_be_anything_of_1_to_200_characters(desk: WebDesk) -> None:
    for key in ("k", "k" * 200, "schlüssel", "\xff\xfe", "a b", "{{timenow}}"):
        first, again = (desk.webhook(headers={"Idempotency-Key": key}) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200), first.text
        assert again.headers["Idempotent-Replayed"] == "true"
        assert first.get_json()["order_id"] == again.get_json()["order_id"]
    assert len(desk.broker.ledger) == 6
    for key in ("", "k" * 201):
        body = is_problem(desk.webhook(headers={"Idempotency-Key": key}), 400, "invalid_alert")
        assert [e["field"] for e in body["errors"]] == ["Idempotency-Key"]
    assert len(desk.broker.ledger) == 6


@pytest.mark.parametrize(
    "authorization", ["Bearer \xff\xfe", "Bearer", "Basic x", "", "Bearer " + "x" * 10_000]
)
def test_odd_credentials_are_a_401(desk: WebDesk, authorization: str) -> None:
    answer = desk.client.get("/api/v1/orders", headers={"Authorization": authorization})
    is_problem(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


FIELDS = [name for name in AlertBody.model_fields if name != "token"]
ODD = {
    "5,000 digits": b"9" * 5000,
    "5,000 digits below zero": b"-" + b"9" * 5000,
    "5,000 digits in a text": b'"' + b"9" * 5000 + b'"',
    "5,000 decimals": b"1." + b"9" * 5000,
    "5,000 decimals in a text": b'"1.' + b"9" * 5000 + b'"',
    "huge": b"1e50",
    "tiny": b"1e-50",
    "20 digits": b"9" * 20,
    "a long text": b'"' + b"x" * 5000 + b'"',
    "a lone surrogate": b'"\\ud800"',
    "a surrogate pair turned round": b'"\\ude00\\ud83d"',
    "a lone surrogate inside": b'[{"x":"\\udfff"}]',
    "a NUL": b'"\\u0000"',
    "nested": b"[" * 15 + b"]" * 15,
    "nested too deeply": b"[" * 16 + b"]" * 16,
    "an empty text": b'""',
    "null": b"null",
    "an object": b"{}",
    "true": b"true",
    "an emoji": '"\U0001f600"'.encode(),
    "the first year": b'"0001-01-01T00:00:00+14:00"',
    "the last year": b'"9999-12-31T23:59:59-14:00"',
    "the first day": b'"0001-01-01"',
    "the last day": b'"9999-12-31"',
}
BAD_TEXT = {name for name in ODD if "surrogate" in name or "NUL" in name}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("odd", ODD)
def test_no_value_of_any_field_is_an_internal_error(tmp_path: Path, field: str, odd: str) -> None:
    desk = WebDesk(tmp_path)
    values = {"token": TOKEN, **ALERT, field: "@"}
    answer = desk.webhook(json.dumps(values).encode().replace(b'"@"', ODD[odd]))
    assert answer.status_code in (200, 400, 422), answer.text
    assert len(answer.data) < 2000
    if odd in BAD_TEXT or "too deeply" in odd or odd in ("5,000 digits", "5,000 decimals"):
        is_problem(answer, 400, "malformed_body")
    if answer.status_code == 400:
        assert desk.broker.calls == []
        assert len(desk.store.data.refusals) == 1


@pytest.mark.parametrize("odd", sorted(BAD_TEXT))
def test_a_field_name_that_is_no_text_is_refused(desk: WebDesk, odd: str) -> None:
    if ODD[odd].startswith(b"["):
        pytest.skip("a name is a text")
    body = json.dumps({"token": TOKEN, **ALERT, "@": 1}).encode().replace(b'"@"', ODD[odd])
    is_problem(desk.webhook(body), 400, "malformed_body")
