"""A TCP proxy on loopback between the service and something that it depends on, and every way for that to be away."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import StrEnum
from typing import Self

SLOW_S = 5.0
FLAP_S = 0.4
PIECE_BYTES = 65_536


class Fault(StrEnum):
    PASS = "pass"
    DOWN = "down"
    """Nobody listens; what was open is gone."""
    SLOW = "slow"
    """Each answer comes SLOW_S late."""
    RESET = "reset"
    """Taken, and reset at the first byte."""
    BLACK_HOLE = "black hole"
    """Taken, swallowed and never answered: no time-out of TCP itself ever ends it."""
    FLAPPING = "flapping"
    """Every FLAP_S the other of PASS and RESET."""


class FaultProxy:
    """`with FaultProxy(port) as proxy: proxy.set(Fault.DOWN)`; `proxy.port` stays the same throughout.

    `spoil`: bytes of a request that itself still passes, while its answer and all that comes later on that connection
    meets `spoil_by`.
    """

    def __init__(self, target: int | str) -> None:
        """`target`: a port on loopback, or the path of a Unix socket."""
        self._target = target
        self.fault = Fault.PASS
        self.spoil, self.spoil_by = b"", Fault.PASS
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self._closed = threading.Event()
        self._listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._drop_all()
        self._thread.join(5)
        if self._listener is not None:
            self._listener.close()

    def set(self, fault: Fault) -> None:
        """From now on; what is open meets it at its next byte, and at once when it is DOWN or RESET."""
        self.fault = fault
        self.spoil = b""
        if fault in (Fault.DOWN, Fault.RESET, Fault.PASS):
            self._drop_all()  # PASS too: what a black hole has swallowed would never be answered

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)
        self._listener.settimeout(0.05)
        self.port = self._listener.getsockname()[1]

    def _serve(self) -> None:
        while not self._closed.is_set():
            if self.fault is Fault.DOWN:
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
                self._closed.wait(0.01)
                continue
            if self._listener is None:
                self._listen()
                continue
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        server = None
        try:
            server = self._reached()
            with self._lock:
                self._open |= {client, server}
            link = _Link(self, client, server)
            back = threading.Thread(target=link.answers, daemon=True)
            back.start()
            link.requests()
            back.join()
        except OSError:
            pass
        finally:
            for end in (client, server):
                if end is not None:
                    with self._lock:
                        self._open.discard(end)
                    end.close()

    def _reached(self) -> socket.socket:
        if isinstance(self._target, int):
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            server.settimeout(None)
            return server
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        return server

    def _drop_all(self) -> None:
        with self._lock:
            ends = list(self._open)
        for end in ends:
            drop(end)

    def now(self) -> Fault:
        if self.fault is not Fault.FLAPPING:
            return self.fault
        return Fault.PASS if int(time.monotonic() / FLAP_S) % 2 else Fault.RESET


class _Link:
    """One connection in both directions."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._own: Fault | None = None

    def requests(self) -> None:
        self._pump(self._client, self._server, is_answer=False)

    def answers(self) -> None:
        self._pump(self._server, self._client, is_answer=True)

    def _pump(self, source: socket.socket, sink: socket.socket, *, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                proxy = self._proxy
                fault = self._own or proxy.now()
                if not is_answer and proxy.spoil and proxy.spoil in data:
                    self._own, fault = proxy.spoil_by, Fault.PASS
                if fault in (Fault.RESET, Fault.DOWN):
                    break
                if fault is Fault.BLACK_HOLE:
                    continue
                if fault is Fault.SLOW and is_answer:
                    proxy._closed.wait(SLOW_S)
                sink.sendall(data)
        drop(source)
        drop(sink)


def drop(end: socket.socket) -> None:
    """A reset, and whoever waits in it is woken."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
