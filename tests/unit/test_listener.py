"""The end of a listening socket: who has got in is served, and nobody gets in who would not be."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from app.serving import worker as serving
from app.serving.listener import admit_nobody, admit_nobody_from_the_end
from app.serving.worker import PatientWorker

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters a listening socket")
ALERT = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def gets_in(listener: socket.socket) -> bool:
    """On the loopback a connection stands, or does not, when connect() returns."""
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        return bool(select.select([], [client], [], 0)[1])


def arbiter(listener: socket.socket, **fields: Any) -> Any:
    held = SimpleNamespace(sock=listener, close=lambda: None)  # another process has it open as well
    known = {"pid": os.getpid(), "reexec_pid": 0, "master_pid": 0, "systemd": False}
    return SimpleNamespace(LISTENERS=[held], **{**known, **fields})


@only_linux
def test_who_has_got_in_is_served_and_nobody_new_gets_in(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as early:
        early.sendall(b"before")
        assert gets_in(listener)
        admit_nobody(listener)
        assert not gets_in(listener)
        early.sendall(b" and after")
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(100) == b"before and after"


@only_linux
def test_gunicorn_does_so_at_the_services_end(listener: socket.socket) -> None:
    server = arbiter(listener)
    admit_nobody_from_the_end(server)
    assert gets_in(listener)
    server.LISTENERS[0].close()
    assert not gets_in(listener)


@pytest.mark.parametrize(
    "fields",
    [{"pid": os.getpid() + 1}, {"reexec_pid": 7}, {"master_pid": 7}, {"systemd": True}],
    ids=["a worker", "the old one of an upgrade", "the new one of an upgrade", "kept by systemd"],
)
def test_a_listener_that_others_go_on_with_still_admits(
    listener: socket.socket, fields: dict[str, int]
) -> None:
    server = arbiter(listener, **fields)
    admit_nobody_from_the_end(server)
    server.LISTENERS[0].close()
    assert gets_in(listener)


@pytest.fixture
def worker(listener: socket.socket, tmp_path: Path) -> Iterator[PatientWorker]:
    """Takes three connections at once; `begun` has those whose requests have come whole."""
    config = Config()
    for name, value in {"worker_tmp_dir": str(tmp_path), "threads": 1, "worker_connections": 3}.items():
        config.set(name, value)
    made = PatientWorker(1, os.getppid(), [listener], None, 30, config, Logger(config))
    made.poller = selectors.DefaultSelector()
    made.begun = []
    made.enqueue_req = made.begun.append
    made.set_accept_enabled(True)
    yield made
    for conn in [*made.begun, *made.waiting]:
        conn.close()
    made.poller.close()
    made.tmp.close()


def ended(worker: PatientWorker) -> list[Any]:
    """The addresses of the clients whose requests it has taken over at its end."""
    worker.alive = False
    worker.set_accept_enabled(False)
    assert worker.sockets[0].fileno() == -1
    return [conn.client for conn in worker.begun]


@contextmanager
def clients(listener: socket.socket, count: int, says: bytes = ALERT) -> Iterator[list[Any]]:
    """Their addresses."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(count)]
        for each in made:
            each.sendall(says)
        yield [each.getsockname() for each in made]


def test_a_worker_that_ends_takes_over_all_that_have_got_in(
    worker: PatientWorker, listener: socket.socket
) -> None:
    """One that has hung up again is no end of the queue, and there may be more than it has connections."""
    with clients(listener, 1) as first:
        socket.create_connection(listener.getsockname()).close()
        with clients(listener, 5) as others:
            assert ended(worker) == first + others


def test_a_worker_that_ends_without_a_file_descriptor_makes_room(
    worker: PatientWorker, listener: socket.socket
) -> None:
    with clients(listener, 1, b"") as _, clients(listener, 1) as last:
        worker.accept(listener)  # the silent one
        assert len(worker.waiting) == 1
        real = worker.sockets[0]
        worker.sockets = [Full(real)]
        assert ended(worker) == last
        assert not worker.waiting


class Full:
    """A listener in a process that has no descriptor left for the next connection."""

    def __init__(self, real: socket.socket) -> None:
        self._real, self._left = real, 1

    def accept(self) -> tuple[socket.socket, Any]:
        if self._left:
            self._left = 0
            raise OSError(errno.EMFILE, "too many open files")
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_worker_that_ends_waits_for_the_handshakes_on_their_way(
    worker: PatientWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        late: list[Any] = []

        def waits(*given: Any) -> Any:
            if not late:
                late.extend(stack.enter_context(clients(listener, 1)))
            return select.select(*given)

        monkeypatch.setattr(serving, "select", SimpleNamespace(select=waits))
        assert ended(worker) == late != []


def test_a_worker_that_ends_alone_leaves_the_others_what_goes_on_coming(
    worker: PatientWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over at once here: it takes the one that it has begun with."""
    monkeypatch.setattr(serving, "TAKING_S", -1)
    with clients(listener, 2) as all_of_them:
        assert ended(worker) == all_of_them[:1]


def test_a_worker_without_its_parent_ends_as_when_it_is_told(
    worker: PatientWorker, listener: socket.socket
) -> None:
    assert worker.is_parent_alive()
    worker.ppid = -1
    with clients(listener, 2) as all_of_them:
        assert not worker.is_parent_alive()
        worker.set_accept_enabled(False)
        assert [conn.client for conn in worker.begun] == all_of_them
