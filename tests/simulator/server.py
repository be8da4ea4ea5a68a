"""HTTP/1.1 over plain sockets: keep-alive done properly, and every byte of an answer under control."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import struct
import threading
import time
from typing import BinaryIO, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.simulator.faults import Fault
from tests.simulator.wire import Reply, Request

MAX_BODY = 8 * 1024 * 1024
_ABORT = struct.pack("ii", 1, 0)


class Application(Protocol):
    """What a server serves."""

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, asked before its body is read."""
        ...

    def respond(self, request: Request, fault: Fault | None) -> Reply:
        """The reply to a request read whole."""
        ...


class Gate:
    """Where hanging answers wait: until their time is up, a release, or the end."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._generation = 0
        self._closed = False

    def wait(self, seconds: float) -> None:
        """Block for that long at most."""
        deadline = time.monotonic() + seconds
        with self._condition:
            started = self._generation
            while not self._closed and self._generation == started:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._condition.wait(left)

    def release(self, *, close: bool = False) -> None:
        """Let everyone go who waits now; with `close` nobody waits again."""
        with self._condition:
            self._generation += 1
            self._closed = self._closed or close
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the server is going away."""
        return self._closed


class Server:
    """One thread per connection on a loopback port."""

    def __init__(self, application: Application, host: str, port: int) -> None:
        self._application = application
        self.gate = Gate()
        self._listener = socket.create_server((host, port), backlog=256)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, name="fyers-sim", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            while self._one(connection, stream):
                pass
        except (OSError, ValueError, http.client.HTTPException):
            pass  # the peer went away, or sent what is no HTTP
        finally:
            with self._lock:
                self._open.discard(connection)
            stream.close()
            connection.close()

    def _one(self, connection: socket.socket, stream: BinaryIO) -> bool:
        """Serve one request; whether another may follow on this connection."""
        line = stream.readline(65537).strip()
        if not line:
            return False
        method, target, version = line.decode("latin-1").split(" ", 2)
        headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
        parts = urlsplit(target)
        path = unquote(parts.path)
        fault = self._application.fault_for(method, path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if fault is not None and fault.name == "reset_unread":
            self._application.respond(Request(method, path, query, headers), fault)
            _reset(connection)
            return False
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _read_body(stream, headers)
        if fault is not None and fault.name == "slow":
            self.gate.wait(fault.seconds)
            if self.gate.closed:
                return False
        reply = self._application.respond(Request(method, path, query, headers, body), fault)
        wants_close = version == "HTTP/1.0" or "close" in headers.get("connection", "").lower()
        return deliver(connection, reply, self.gate, head_only=method == "HEAD", close=wants_close)

    def drop_connections(self) -> None:
        """Close every open connection from this side, as an idle time-out would."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, release what hangs, drop every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.gate.release(close=True)
        self.drop_connections()
        self._thread.join(1)


def _read_body(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = io.BytesIO()
        while (size := int(stream.readline(1024).split(b";")[0], 16)) > 0:
            body.write(stream.read(size))
            stream.readline(8)
        while stream.readline(65537).strip():
            pass
        return body.getvalue()
    length = int(headers.get("content-length") or 0)
    if not 0 <= length <= MAX_BODY:
        raise ValueError(f"expected a body of at most {MAX_BODY} bytes, was {length}")
    body_bytes = stream.read(length)
    if len(body_bytes) < length:
        raise ConnectionError("the peer left in the middle of its body")
    return body_bytes


def deliver(connection: socket.socket, reply: Reply, gate: Gate, *, head_only: bool, close: bool) -> bool:
    """Send a reply as its `delivery` says; whether the connection lives on."""
    if reply.delivery in ("hang", "slow"):
        gate.wait(reply.seconds)
    if reply.delivery == "reset":
        _reset(connection)
        return False
    if reply.delivery in ("hang", "disconnect") or gate.closed:
        return False
    head = _head(reply, close)
    body = b"" if head_only or reply.status == 304 else reply.body
    if reply.delivery == "short_body":
        connection.sendall(head + body[: len(body) // 2])
        return False
    if reply.delivery == "drip_headers":
        _drip(connection, head, reply.seconds, gate)
        connection.sendall(body)
    elif reply.delivery == "drip_body":
        connection.sendall(head)
        _drip(connection, body, reply.seconds, gate)
    else:
        connection.sendall(head + body)
    return not close and reply.delivery != "close_after"


def _head(reply: Reply, close: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, 'Status')}"]
    if reply.status != 304:
        lines += [f"Content-Type: {reply.content_type}", f"Content-Length: {len(reply.body)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _drip(connection: socket.socket, data: bytes, seconds: float, gate: Gate) -> None:
    for n in range(len(data)):
        connection.sendall(data[n : n + 1])
        gate.wait(seconds)
        if gate.closed:
            raise ConnectionError("the simulator is closing")


def _reset(connection: socket.socket) -> None:
    """Make the close that follows an RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
