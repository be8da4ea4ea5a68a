"""gunicorn's threaded worker, with one change: a request is received whole before it gets a thread.

gthread reads headers and bodies in its threads, without a time-out: sixteen clients that send a byte now and then
hold all of them, for as long as they like. A silent one holds a thread for 5 s, and one that does not hang up after
its answer holds the loop itself for 2 s. Here the worker's loop does all of that, which never blocks:

- it receives, bounded in bytes and in time, and hands over what is whole; the thread reads from memory and nothing else;
- whoever takes longer than RECEIVE_S is told 408 and cut;
- with all connections taken, the one that has waited longest is closed for the one that comes: an alert is whole within
  milliseconds, so it is never the oldest;
- a connection that ends is drained by the loop, for LINGER_S, so that its answer is not lost to a reset.

Answers go into the socket's own buffer, which is large enough for any of ours: whoever does not read holds nobody.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from gunicorn.http import errors as http_errors
from gunicorn.http import get_parser
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers.gthread import ThreadWorker

from app.service import observe
from app.serving.connection import Connection, Received, readable, unread
from app.serving.receive import Incoming, Progress, refusal

RECEIVE_S = 3.0
"""From a request's first byte to its last: TradingView itself gives up after 3 s."""
FIRST_BYTE_S = 5.0
"""For a new connection to say anything. Browsers open some in advance."""
LAST_HANDSHAKES_S = 0.2
"""For a client that had begun to connect when the worker ended: a long way there and back."""
TAKING_S = 1.0
"""Where others go on with the listener, new connections need not ever end."""
LINGER_S = 1.0
SWEEP_S = 0.25
PIECE_BYTES = 65_536
MAX_DRAINED_BYTES = 1_000_000
SEND_BUFFER_BYTES = 262_144
MAX_UNREAD_BYTES = 32_768
"""Answers that a client has not read when the next request comes: one that only asks is cut, before the buffer is full."""
SEND_S = 2
"""For an answer that is larger than the buffer (a long list, which only a known client can ask for)."""


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """`max_body_bytes`: what the application reads at most. Set by gunicorn.conf.py."""

    max_body_bytes: ClassVar[int] = 65_536

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[Connection, None] = {}
        """Registered with the poller, the one that has waited longest first."""
        self._next_sweep = 0.0

    # -- connections, in the loop

    def set_accept_enabled(self, enabled: bool) -> None:
        """At the end of a worker the connections that wait in the kernel are taken over first, and those whose
        handshake is on its way: closing the listener would reset them, and their clients have sent their requests
        already. See app/serving/listener.py.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        until = time.monotonic() + LAST_HANDSHAKES_S
        for listener in self.sockets:
            listener.setblocking(False)
            while self._take(listener) or self._comes(listener, until):
                if time.monotonic() > until + TAKING_S:
                    break
            listener.close()

    def _comes(self, listener: socket.socket, until: float) -> bool:
        left = until - time.monotonic()
        return left > 0 and bool(select.select([listener], [], [], left)[0])

    def is_parent_alive(self) -> bool:
        """Without it this worker ends as after a SIGTERM."""
        if not super().is_parent_alive():
            self.alive = False
        return bool(self.alive)

    def accept(self, listener: socket.socket) -> None:
        self._take(listener)

    def _take(self, listener: socket.socket) -> bool:
        """Take over one connection, whatever becomes of it. False: there is none, or no room, which is made for it."""
        try:
            sock, address = listener.accept()
        except OSError as error:  # gone again, or taken by another worker
            if error.errno in (errno.EMFILE, errno.ENFILE) and self.waiting:
                self._close(next(iter(self.waiting)))
            return False
        while self.waiting and self.nr_conns >= self.worker_connections - 1:
            self._close(next(iter(self.waiting)))
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, address, listener.getsockname())
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
        self._expect(conn, b"", FIRST_BYTE_S)
        return True

    def _expect(self, conn: Connection, data: bytes, within_s: float) -> None:
        """Wait for the next request, of which `data` has come already."""
        conn.incoming, conn.has_begun = Incoming(self.max_body_bytes), False
        conn.deadline = time.monotonic() + within_s
        conn.sock.setblocking(False)
        self._wait(conn, self._receive)
        if data:
            self._took(conn, data)
        self._receive(conn)  # mostly it is there already

    def _wait(self, conn: Connection, then: Callable[[Connection], None]) -> None:
        self.waiting[conn] = None
        self.poller.register(conn.sock, 1, partial(self._ready, conn, then))

    def _ready(self, conn: Connection, then: Callable[[Connection], None], _: object) -> None:
        if conn in self.waiting:  # else it was closed for another in this same round
            then(conn)

    def _stop_waiting(self, conn: Connection) -> None:
        self.waiting.pop(conn, None)
        with suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)

    def _receive(self, conn: Connection) -> None:
        if conn not in self.waiting:
            return
        try:
            data = conn.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            conn.has_begun = False  # it is gone: nobody would read an answer
        if data:
            self._took(conn, data)
        elif conn.has_begun:  # no more comes, and it was to be more: a length that lies
            self._refuse(conn, 400)
        else:
            self._close(conn)

    def _took(self, conn: Connection, data: bytes) -> None:
        if not conn.has_begun:
            conn.began = time.monotonic()
            conn.has_begun, conn.deadline = True, conn.began + RECEIVE_S
        progress = conn.incoming.add(data)
        if progress is Progress.HEAD_TOO_LARGE:
            self._refuse(conn, 431)
        elif progress is not Progress.MORE:
            self._stop_waiting(conn)
            conn.is_whole = progress is Progress.WHOLE
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = Received(bytes(conn.incoming.data))
            conn.incoming = Incoming(self.max_body_bytes)
            self.enqueue_req(conn)
        elif conn.incoming.wants_continue:
            conn.incoming.wants_continue = False
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, conn: Connection, status: int) -> None:
        with suppress(OSError):
            conn.sock.send(refusal(status))
        self._stop_waiting(conn)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """End it in order (RFC 9112, 9.6): our side first, then whatever the other still sends is thrown away."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
        except OSError:
            self._close(conn)
            return
        conn.deadline, conn.has_begun = time.monotonic() + LINGER_S, False
        self._wait(conn, self._drain)
        self._drain(conn)

    def _drain(self, conn: Connection) -> None:
        try:
            data = conn.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.drained += len(data)
        if not data or conn.drained > MAX_DRAINED_BYTES:
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._stop_waiting(conn)
        self.nr_conns -= 1
        conn.close()

    # -- what gunicorn's loop calls

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, SWEEP_S))

    def murder_pending(self) -> None:
        """End what took too long."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_S
        for conn in [c for c in self.waiting if c.deadline <= now]:
            if conn.has_begun:
                self._refuse(conn, 408)
            else:
                self._close(conn)

    def murder_keepalived(self, force: bool = False) -> None:  # gunicorn's signature
        if force:
            for conn in list(self.waiting):
                self._close(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """The worker stops: those that have not begun a request have until then."""
        for conn in self.waiting:
            conn.deadline = min(conn.deadline, deadline)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        try:
            keep = bool(fs.result())
        except Exception:  # noqa: BLE001 - whatever a thread died of, the loop goes on and this connection ends
            keep = False
        if not keep or unread(conn.sock) > MAX_UNREAD_BYTES:
            self._linger(conn)
            return
        left = conn.parser.unreader.take_buffered()
        self._expect(conn, left, self.cfg.keepalive)

    # -- in a thread

    def handle_request(self, req: Any, conn: Connection) -> bool:
        req._expected_100_continue = False  # noqa: SLF001 - said already, before the body came
        observe.queued(conn.began)
        if not conn.is_whole:
            req.force_close()
        req.body.reader.read = readable(req.body.reader.read)
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """A connection goes on only where the next request's beginning is certain."""
        if not keepalive or not conn.is_whole:
            return False
        drained = super()._keepalive_after(conn, keepalive)
        reader = conn.parser.mesg.body.reader
        is_certain = isinstance(reader, ChunkedReader) or (
            isinstance(reader, LengthReader) and reader.length == 0
        )
        return bool(drained) and is_certain

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """A request that is no HTTP, or an application that failed outside its own error handling."""
        status = next((s for kind, s in _STATUS if isinstance(exc, kind)), 500)
        if status == 500:
            self.log.error("error handling request", exc_info=exc)
        else:
            self.log.info("refused %s: %s", addr[0] if addr else "", type(exc).__name__)
        with suppress(OSError):
            client.sendall(refusal(status))


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (http_errors.InvalidResponseHeader, 500),
    (http_errors.InvalidResponseHeaderName, 500),
    (http_errors.LimitRequestLine, 414),
    (http_errors.LimitRequestHeaders, 431),
    (http_errors.ExpectationFailed, 417),
    (http_errors.ParseException, 400),
)
