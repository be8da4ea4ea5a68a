"""Clients that drip, stall, never read and never hang up, by the hundred: others are answered all the same."""

from __future__ import annotations

import itertools
import multiprocessing
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.alone]
CLIENTS = 200
HEAD = b"POST /webhook HTTP/1.1\r\nHost: a\r\n"
DRIP_S = 0.2
ANSWERED_WITHIN_S = 1.0
NUMBERS = itertools.count(1)
"""Each alert is one of its own: a repeat of a known one would be answered without an order."""


FORK = multiprocessing.get_context("fork")


class Slow:
    """Many connections: each says `first`, then a byte of `rest` every DRIP_S; one that is cut comes again.

    In a process of their own, so that whoever measures does not wait for them at home.
    """

    def __init__(self, port: int, first: bytes, rest: bytes, count: int = CLIENTS, buffer: int = 0) -> None:
        self._port, self._first, self._rest, self._count, self._buffer = port, first, rest, count, buffer
        self._over, self._up = FORK.Event(), FORK.Event()
        self._cut, self._sent = FORK.Value("i", 0), FORK.Value("i", 0)
        self._process = FORK.Process(target=self._run)

    @property
    def cut(self) -> int:
        return int(self._cut.value)

    @property
    def sent(self) -> int:
        return int(self._sent.value)

    def __enter__(self) -> Self:
        self._process.start()
        assert self._up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.join()

    def _new(self) -> socket.socket:
        sock = socket.socket()
        if self._buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        sock.settimeout(5)
        sock.connect(("127.0.0.1", self._port))
        with suppress(OSError):
            sock.sendall(self._first)
        return sock

    def _run(self) -> None:
        socks = [self._new() for _ in range(self._count)]
        self._up.set()
        at = 0
        while not self._over.wait(DRIP_S):
            at += 1
            for number, sock in enumerate(socks):
                if self._is_cut(sock):
                    self._cut.value += 1
                    sock.close()
                    socks[number] = self._new()
                elif self._rest:
                    with suppress(OSError):
                        self._sent.value += sock.send(self._rest[at % len(self._rest) :][:1])
        for sock in socks:
            sock.close()

    def _is_cut(self, sock: socket.socket) -> bool:
        if self._buffer:  # one that does not read does not notice either
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(0))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    limits = ("MINUTE", "HOUR", "DAY")
    env = {f"RISK_MAX_ORDERS_PER_{name}": "" for name in limits} | {
        "RISK_RUNAWAY": "",
        "RISK_MAX_OPEN_LOTS": "",
    }
    with Service(tmp_path, env) as running:
        for _ in range(3):  # a process's first alert loads what the others find: not the slow clients' doing
            assert running.alert(strikeprice=24500, lots=1, strategy=f"alert {next(NUMBERS)}").status == 200
        yield running


def took(ask: Callable[[], int]) -> float:
    started = time.monotonic()
    assert ask() == 200
    return time.monotonic() - started


KINDS = {
    "headers": (HEAD, b"X-Slow: aaaaaaaa\r\n"),
    "body": (HEAD + b"Content-Length: 60000\r\n\r\n", b"a"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "silence": (b"", b""),
    "half a request": (HEAD, b""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_alert_is_answered_beside_200_slow_clients(
    service: Service, kind: str, record_property: Callable[[str, object], None]
) -> None:
    first, rest = KINDS[kind]
    with Slow(service.port, first, rest) as slow:
        times = []
        give_up = time.monotonic() + 6
        while time.monotonic() < give_up:
            times.append(
                took(
                    lambda: service.alert(strikeprice=24500, lots=1, strategy=f"alert {next(NUMBERS)}").status
                )
            )
            time.sleep(0.1)
    times.sort()
    record_property(
        "measured",
        f"{CLIENTS} clients, {kind}: {len(times)} alerts, median {times[len(times) // 2]:.3f} s, "
        f"slowest {times[-1]:.3f} s, {slow.cut} cut",
    )
    assert max(times) < ANSWERED_WITHIN_S, times[-5:]
    assert slow.cut >= CLIENTS, "each of them was cut"
    assert not rest or slow.sent > CLIENTS, "and had dripped until then"
    assert "WORKER TIMEOUT" not in service.log


def test_clients_that_do_not_read_their_answers_hold_nobody(service: Service) -> None:
    """More of them than threads, with the smallest window, ask for a quarter of a megabyte and read nothing of it."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 400
    with Slow(service.port, ask, b"", count=24, buffer=1024):
        times = []
        give_up = time.monotonic() + 4
        while time.monotonic() < give_up:
            times.append(
                took(
                    lambda: service.alert(strikeprice=24500, lots=1, strategy=f"alert {next(NUMBERS)}").status
                )
            )
            time.sleep(0.1)
    assert max(times) < ANSWERED_WITHIN_S, sorted(times)[-5:]


@pytest.mark.quiet
def test_clients_that_do_not_hang_up_after_a_refusal_hold_nobody(service: Service) -> None:
    refused = HEAD + b"Content-Length: 99999999\r\n\r\n"
    with Slow(service.port, refused, b"a"):
        times = []
        give_up = time.monotonic() + 4
        while time.monotonic() < give_up:
            times.append(
                took(
                    lambda: service.alert(strikeprice=24500, lots=1, strategy=f"alert {next(NUMBERS)}").status
                )
            )
            time.sleep(0.1)
    assert max(times) < ANSWERED_WITHIN_S, sorted(times)[-5:]


def test_more_connections_than_the_worker_takes(service: Service) -> None:
    """The longest-waiting ones make room: past the bound an alert still comes through at once."""
    with Slow(service.port, *KINDS["headers"], count=800) as slow:
        times = [
            took(lambda: service.alert(strikeprice=24500, lots=1, strategy=f"alert {next(NUMBERS)}").status)
            for _ in range(20)
        ]
        while not slow.cut and len(times) < 2000:  # it drips once in a while, and notices only then
            times.append(took(lambda: service.get("/healthz").status))
    assert max(times) < ANSWERED_WITHIN_S, sorted(times)[-5:]
    assert slow.cut > 0
