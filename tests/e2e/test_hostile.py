"""Hostile requests on every route: nothing is answered 5xx, nothing is ordered, no worker dies, memory stays flat.

A tenth of them in every run; all 20,000 by `make hostile` or `make limits`. Left out of the count of 5xx: the 503 by which a route says
that something which it needs is not there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from werkzeug.test import TestResponse

from tests.e2e.hostile import BAD, BODIES, HEADERS, PATHS, POSTS, spoilt
from tests.e2e.service import Service
from tests.limits import IS_FULL, size
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

pytestmark = pytest.mark.slow
GENERATED, MUTATED, BY_SCHEMA, SERVED = (size(n) for n in (8000, 4000, 4000, 4000))
MOST_ROUNDS = 20
Record = Callable[[str, object], None]
CORPUS = Path(__file__).parents[2].parent / "shared" / "alerts"
HYPOTHESIS = settings(
    deadline=None,
    database=None,
    derandomize=not IS_FULL,
    suppress_health_check=list(HealthCheck),
)


class Judge:
    """A desk that answers, and what must hold of every answer."""

    def __init__(self, directory: Path) -> None:
        self.desk = WebDesk(directory)
        self.seen: Counter[int] = Counter()

    def fresh(self) -> None:
        """Now and then: what is refused for being too many is not looked at any further."""
        if self.count % 20 == 0:
            (limiter,) = self.desk.app.extensions["limiter"]
            limiter.reset()
            self.desk.app.extensions["ports"].callers.failures.__init__(self.desk.clock.monotonic)

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> TestResponse:
        self.fresh()
        answer = self.desk.client.open(path, method=method.upper(), data=body, headers=headers)
        self.check(method, path, answer.status_code, answer.text, body)
        return answer

    def check(self, method: str, path: str, status: int, text: str, sent: object) -> None:
        self.seen[status] += 1
        assert status < 500 or (status == 503 and path.startswith("/readyz")), (method, path, sent, text)
        assert "Traceback" not in text
        assert self.desk.broker.ledger == [], (method, path, sent)

    @property
    def count(self) -> int:
        return sum(self.seen.values())

    def told(self, what: str) -> str:
        return f"{self.count} {what}: {dict(sorted(self.seen.items()))}, 0 orders"

    def looked_at(self, count: int) -> None:
        """That these were requests, and not all of them stopped at the first gate."""
        assert self.count >= count
        stopped = self.seen[401] + self.seen[403] + self.seen[404] + self.seen[429]
        assert stopped < 0.7 * sum(self.seen.values()), self.seen


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def rounds(judge: Judge, wanted: int) -> Iterator[int]:
    """Until there have been as many: what draws them may end early. In full other ones each time, else always the same."""
    start = random.SystemRandom().randrange(10**9) if IS_FULL else 0
    for number in range(start, start + MOST_ROUNDS):
        if judge.count >= wanted:
            return
        yield number


def token_for(path: str) -> str:
    return TOKEN if path in ("/api/v1/orders", "/api/v1/check") else ADMIN


def test_generated_bodies(judge: Judge, record_property: Record) -> None:
    @settings(HYPOTHESIS, max_examples=GENERATED)
    @given(st.sampled_from(POSTS), BODIES, HEADERS)
    def hostile(route: tuple[str, str], body: bytes, headers: dict[str, str]) -> None:
        method, path = route
        bearer = {} if path == "/webhook" else {"Authorization": f"Bearer {token_for(path)}"}
        judge.send(method, path, body, {**headers, **bearer})

    for number in rounds(judge, GENERATED):
        seed(number)(hostile)()
    judge.looked_at(GENERATED)
    record_property("measured", judge.told("generated"))


def test_the_corpus_spoilt(judge: Judge, record_property: Record) -> None:
    files = sorted(p for p in CORPUS.rglob("*") if p.is_file() and p.name != "index.json")
    if not files:
        pytest.skip("the corpus of alerts is not beside this checkout")
    rng = random.Random(11)
    # Its own token, so that it is read to its end; its strike is none of ours, so that nothing can come of it.
    bodies = [p.read_bytes() for p in files]
    while judge.count < MUTATED:
        with contextlib.suppress(UnicodeDecodeError):
            body = spoilt(rng.choice(bodies), rng)
            method, path = rng.choice(POSTS)
            bearer = {} if path == "/webhook" else {"Authorization": f"Bearer {token_for(path)}"}
            judge.send(method, path, body, bearer)
    record_property("measured", judge.told("of the corpus, spoilt"))


def test_whatever_the_document_allows_and_forbids(judge: Judge, record_property: Record) -> None:
    """Schemathesis draws requests that fit /openapi.json, and such that do not, for every operation."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_wsgi("/openapi.json", judge.desk.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    served = judge.desk.client.get("/openapi.json").get_json()["paths"].values()
    # All but the document's own.
    assert len(operations) == sum(len(methods) for methods in served) - 1
    each = max(2, BY_SCHEMA // len(operations) // 2)
    for number in rounds(judge, BY_SCHEMA):
        for operation, mode in itertools.product(operations, GenerationMode):
            # An operation without parameters and body has nothing that could be wrong.
            with contextlib.suppress(Unsatisfiable):
                strategy = operation.as_strategy(generation_mode=mode)
                drawn_from(judge, strategy, token_for(operation.path), each, number)
    assert judge.count >= BY_SCHEMA
    record_property("measured", judge.told("by the document"))


def drawn_from(judge: Judge, strategy: st.SearchStrategy[Any], token: str, count: int, number: int) -> None:
    @seed(number)
    @settings(HYPOTHESIS, max_examples=count)
    @given(strategy)
    def send(case: Any) -> None:
        judge.fresh()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own
            answer = case.call(headers={"Authorization": f"Bearer {token}"})
        judge.check(case.method, case.path, answer.status_code, answer.text, case)

    send()


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def workers(service: Service) -> list[int]:
    assert service.process is not None
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    named = [int(pid) for pid in children.split()]
    return [pid for pid in named if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def raw_requests(service: Service, rng: random.Random) -> Iterator[bytes]:
    """Without end: well-formed requests with hostile bodies, and bytes that are hardly HTTP."""
    webhook, admin = service.token("webhook_token"), service.token("admin_token")
    while True:
        method, path = rng.choice(PATHS)
        name = rng.choice(sorted(BAD))
        fields = {**ALERT, name: rng.choice(BAD[name]), "token": webhook}
        body = spoilt(json.dumps(fields).encode(), rng) if rng.random() < 0.5 else json.dumps(fields).encode()
        if body and name not in body.decode(errors="replace"):
            continue  # what made it no order was cut out
        if rng.random() < 0.5:
            body = rng.randbytes(rng.choice([0, 1, 100, 70_000]))
        head = f"{method.upper()} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {admin}\r\n".encode()
        length = rng.choice([len(body), len(body), len(body), max(0, len(body) - 1), 0, -1, 10**12])
        ending = f"Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()
        if rng.random() < 0.2:
            ending = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            body = rng.choice(
                [
                    f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n",
                    body,
                    b"-1\r\n\r\n",
                    b"ffffffffff\r\n",
                ]
            )
        request = head + ending + body
        yield spoilt(request, rng) if rng.random() < 0.2 else request


def status_of(port: int, request: bytes) -> int | None:
    """None: cut without an answer, which hardly-HTTP may be."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        with contextlib.suppress(OSError):
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := wire.recv(65536):
                answer += piece
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else None


def test_no_header_changes_the_path_behind_a_tunnel_of_this_host(tmp_path: Path) -> None:
    """Its peer address is loopback, as ours is here."""
    with Service(tmp_path) as service:
        shown = {
            name: service.request("GET", "/webhook/healthz", headers=given).status
            for name, given in (
                ("without", {}),
                ("prefix", {"SCRIPT_NAME": "/webhook"}),
                ("path", {"PATH_INFO": "/healthz"}),
            )
        }
        assert service.request("GET", "/healthz", headers={"SCRIPT_NAME": "/none"}).status == 200
    assert shown == dict.fromkeys(shown, 404)


def test_the_served_service_stands_it(tmp_path: Path, record_property: Record) -> None:
    rng = random.Random(7)
    with Service(tmp_path) as service:
        before, seen = workers(service), Counter[int | None]()
        assert before
        requests, warm_kb = raw_requests(service, rng), 0
        for number in range(SERVED):
            request = next(requests)
            status = status_of(service.port, request)
            seen[status] += 1
            assert status is None or status < 500 or (status == 503 and b" /readyz" in request), (
                status,
                request[:400],
            )
            if number == SERVED // 2:
                warm_kb = sum(map(resident_kb, workers(service)))
        grown_kb = sum(map(resident_kb, workers(service))) - warm_kb
        assert workers(service) == before, "no worker has died"
        reader = {
            "Authorization": f"Bearer {service.token('webhook_token')}"
        }  # the admin has asked too often by now
        listed = service.request("GET", "/api/v1/orders?limit=200", headers=reader)
        states = {order["state"] for order in listed.body["orders"]}
        assert states <= {"DENIED"}, "a clear no at most, which never left for the broker"
        assert service.alert(strikeprice=24500, lots=1).status == 200, "and it still works"
    assert grown_kb < 15_000
    assert len(seen) >= 5, seen
    assert "Traceback" not in service.log
    record_property("measured", f"{SERVED} served: {dict(seen)}, {grown_kb} KB grown, 0 workers died")
