"""The end of a listening socket: who has got in is served, and nobody gets in who would not be."""

from __future__ import annotations

import os
import select
import selectors
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

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


def test_a_worker_that_ends_takes_over_all_that_have_got_in(tmp_path: Path) -> None:
    """One that has hung up again is no end of the queue."""
    config = Config()
    config.set("worker_tmp_dir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = PatientWorker(1, os.getppid(), [listener], None, 30, config, Logger(config))
        worker.poller = selectors.DefaultSelector()
        begun: list[Any] = []
        worker.enqueue_req = begun.append
        worker.set_accept_enabled(True)
        where = listener.getsockname()
        with socket.create_connection(where) as first:
            first.sendall(ALERT)
            socket.create_connection(where).close()
            with socket.create_connection(where) as last:
                last.sendall(ALERT)
                worker.alive = False
                worker.set_accept_enabled(False)
                assert [conn.client for conn in begun] == [first.getsockname(), last.getsockname()]
        assert listener.fileno() == -1
        for conn in begun:
            conn.close()
        worker.poller.close()
        worker.tmp.close()
