"""Names to addresses, when the name server hangs."""

from __future__ import annotations

import socket
import threading

import pytest

from app.brokers.fyers import resolver
from app.brokers.fyers.resolver import Address, Resolver

KNOWN = (Address(socket.AF_INET, ("127.0.0.1", 1)),)


class NameServer:
    """Stands for getaddrinfo; hangs while `answering` is not set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answering = threading.Event()
        self.answering.set()
        self.error: OSError | None = None

    def __call__(self, host: str, port: int) -> tuple[Address, ...]:
        self.asked += 1
        self.answering.wait(2)
        if self.error:
            raise self.error
        return KNOWN


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(resolver, "_ask", server)
    return server


def test_a_known_name_survives_a_name_server_that_hangs(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Resolver()
    assert [names.addresses("broker.test", 1, 1) for _ in range(2)] == [KNOWN] * 2
    assert server.asked == 1
    server.answering.clear()
    monkeypatch.setattr(resolver, "FRESH_SECONDS", 0)
    assert [names.addresses("broker.test", 1, 0) for _ in range(5)] == [KNOWN] * 5
    assert server.asked == 2, "one thread waits, whoever asks"
    names.forget("broker.test", 1)
    with pytest.raises(TimeoutError):
        names.addresses("broker.test", 1, 0.01)
    assert server.asked == 2
    server.answering.set()


def test_an_unknown_name_is_asked_for_again(server: NameServer) -> None:
    names = Resolver()
    server.error = socket.gaierror(-2, "Name or service not known")
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            names.addresses("broker.test", 1, 1)
    assert server.asked == 2
    server.error = None
    assert names.addresses("broker.test", 1, 1) == KNOWN


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_a_look_up_fails_and_the_next_one_asks(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Resolver()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        for _ in range(2):
            with pytest.raises(OSError, match="can't start new thread"):
                names.addresses("broker.test", 1, 1)
    assert names.addresses("broker.test", 1, 1) == KNOWN
    assert server.asked == 1


def test_without_a_thread_an_older_answer_serves(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Resolver()
    names.addresses("broker.test", 1, 1)
    monkeypatch.setattr(resolver, "FRESH_SECONDS", 0)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert [names.addresses("broker.test", 1, 0) for _ in range(2)] == [KNOWN] * 2


def test_an_address_needs_no_name_server() -> None:
    assert Resolver().addresses("::1", 443, 0)[0].family is socket.AF_INET6
