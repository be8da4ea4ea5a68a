"""Who may start a job: the admin, and Cloud Scheduler by a token that Google signed for it. All on loopback."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from flask import Flask
from flask.testing import FlaskClient

from app.errors import NotAllowed, NotAuthenticated, Unavailable
from app.web import control, errors
from app.web.middleware.scheduler import (
    KEEP_CERTS_S,
    KEEP_FAILURE_S,
    SchedulerTokens,
    fetch_certs,
)
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk

ACCOUNT, AUDIENCE = "jobs@project.iam.gserviceaccount.com", "https://orders.example/internal/jobs"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a key of the test's")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


CERTS = json.dumps({"k1": certificate(KEY)}).encode()


def _part(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def token(
    key: rsa.RSAPrivateKey = KEY, alg: str = "RS256", kid: str = "k1", *, signed: bool = True, **claims: Any
) -> str:
    now = int(time.time())
    usual = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": ACCOUNT,
        "email_verified": True,
        "iat": now - 5,
        "exp": now + 3000,
    }
    body = {k: v for k, v in (usual | claims).items() if v is not ...}
    head = _part({"alg": alg, "kid": kid, "typ": "JWT"}) + b"." + _part(body)
    signature = key.sign(head, padding.PKCS1v15(), hashes.SHA256()) if signed else b""
    return (head + b"." + _part(signature)).decode()


class Google:
    """The certificates' address: counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if self.down:
            raise OSError("no route")
        return CERTS


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def checker(
    google: Callable[[str], bytes] | None = None, clock: Ticks | None = None, **changes: str
) -> SchedulerTokens:
    values = {"account": ACCOUNT, "audience": AUDIENCE} | changes
    return SchedulerTokens(values["account"], values["audience"], clock or Ticks(), google or Google())


def tampered() -> str:
    head, _, signature = token().split(".")
    _, body, _ = token(email_verified=True, email=ACCOUNT, sub="somebody else").split(".")
    return f"{head}.{body}.{signature}"


UNAUTHENTICATED: dict[str, Callable[[], str]] = {
    "expired": lambda: token(exp=int(time.time()) - 60),
    "not yet valid": lambda: token(iat=int(time.time()) + 3600),
    "without an end": lambda: token(exp=...),
    "other audience": lambda: token(aud="https://other.example"),
    "no audience": lambda: token(aud=...),
    "other issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=...),
    "other key": lambda: token(OTHER_KEY),
    "unknown key id": lambda: token(kid="k2"),
    "alg none": lambda: token(alg="none", signed=False),
    "alg HS256": lambda: token(alg="HS256"),
    "without a signature": lambda: token(signed=False),
    "other body under the signature": tampered,
    "no token": lambda: "x.y.z",
    "one part": lambda: "abc",
    "not ASCII": lambda: "ä.ö.ü",
}
NOT_ALLOWED: dict[str, Callable[[], str]] = {
    "other account": lambda: token(email="other@project.iam.gserviceaccount.com"),
    "account with other case": lambda: token(email=ACCOUNT.upper()),
    "no account": lambda: token(email=...),
    "unverified": lambda: token(email_verified=False),
    "verified by a word": lambda: token(email_verified="true"),
    "nothing about verified": lambda: token(email_verified=...),
}


def test_a_good_token_passes() -> None:
    checker().check(token())
    checker().check(token(iss="accounts.google.com"))


@pytest.mark.parametrize("made", UNAUTHENTICATED.values(), ids=UNAUTHENTICATED)
def test_what_is_no_valid_token_for_us(made: Callable[[], str]) -> None:
    with pytest.raises(NotAuthenticated):
        checker().check(made())


@pytest.mark.parametrize("made", NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_a_valid_token_of_somebody_else(made: Callable[[], str]) -> None:
    with pytest.raises(NotAllowed):
        checker().check(made())


def test_certificates_are_kept_for_an_hour() -> None:
    google, clock = Google(), Ticks()
    tokens = checker(google, clock)
    for _ in range(3):
        tokens.check(token())
    assert google.asked == ["https://www.googleapis.com/oauth2/v1/certs"]
    clock.now = KEEP_CERTS_S
    tokens.check(token())
    assert len(google.asked) == 2


def test_without_certificates_nothing_passes_and_google_is_not_asked_for_each_request() -> None:
    google, clock = Google(), Ticks()
    google.down = True
    tokens = checker(google, clock)
    for _ in range(3):
        with pytest.raises(Unavailable):
            tokens.check(token())
    assert len(google.asked) == 1
    google.down, clock.now = False, KEEP_FAILURE_S
    tokens.check(token())


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    pages: dict[str, tuple[int, bytes]] = {"/certs": (200, CERTS), "/broken": (500, CERTS)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    server.server_close()
    thread.join()


def test_certificates_over_http(web: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    where, _ = web
    checker(lambda _: fetch_certs(f"{where}/certs")).check(token())
    with pytest.raises(Unavailable):
        checker(lambda _: fetch_certs(f"{where}/broken")).check(token())


def test_a_server_that_never_answers_does_not_hold_a_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/certs"
        with pytest.raises(requests.Timeout):
            fetch_certs(url, 0.05)
        with pytest.raises(Unavailable):
            checker(lambda _: fetch_certs(url, 0.05)).check(token())


class JobDoor:
    """The job trigger alone, with a job that counts its runs."""

    def __init__(self, directory: Path, tokens: SchedulerTokens) -> None:
        self.ran: list[str] = []
        self.by_timer: list[bool] = []

        def run(name: str, is_timer: bool) -> str:
            if name != "reconcile":
                raise KeyError(name)
            self.ran.append(name)
            self.by_timer.append(is_timer)
            return "done"

        app = Flask("job door")
        ports = WebDesk(directory).app.extensions["ports"]
        app.register_blueprint(control.blueprint(ports, run, tokens))
        errors.register(app)
        self.client: FlaskClient = app.test_client()

    def post(self, given: str | None, name: str = "reconcile") -> int:
        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        return self.client.post(f"/internal/jobs/{name}", headers=headers).status_code


def test_the_job_trigger_by_either_token(tmp_path: Path) -> None:
    door = JobDoor(tmp_path, checker())
    assert door.post(token()) == 200
    assert door.post(ADMIN) == 200
    assert (door.ran, door.by_timer) == (["reconcile", "reconcile"], [True, False])
    assert door.post(token(), "nosuch") == 404
    refused = [
        door.post(t) for t in (None, "", "wrong", token(OTHER_KEY), token(aud="https://other.example"))
    ]
    assert refused == [401] * 5
    assert [door.post(t) for t in (token(email="other@x.iam.gserviceaccount.com"), TOKEN)] == [403, 403]
    assert door.ran == ["reconcile", "reconcile"]


@pytest.mark.parametrize("off", [{"account": ""}, {"audience": ""}, {"account": "", "audience": ""}])
def test_off_unless_both_are_given(tmp_path: Path, off: dict[str, str]) -> None:
    google = Google()
    door = JobDoor(tmp_path, checker(google, None, **off))
    assert door.post(token(aud="")) == 401
    assert door.post(token(aud=..., email="")) == 401
    assert (google.asked, door.ran) == ([], [])
    assert door.post(ADMIN) == 200


def test_the_schedulers_token_opens_nothing_but_jobs(tmp_path: Path) -> None:
    door = JobDoor(tmp_path, checker())
    headers = {"Authorization": f"Bearer {token()}"}
    assert door.client.get("/api/v1/state", headers=headers).status_code == 401
