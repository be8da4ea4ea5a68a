"""One HTTP connection under a deadline, and the pool that keeps idle ones."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from time import monotonic
from typing import Any, NamedTuple

import certifi
from urllib3.connection import HTTPConnection

from app.brokers.fyers.deadline_socket import AnswerReader, DeadlineSocket, DeadlineTlsSocket, Phase, Watch
from app.brokers.fyers.resolver import Resolver
from app.domain.deadline import Deadline

MAX_BODY_BYTES = 8 * 1024 * 1024
"""After decompression. A day's order book of 10,000 rows is about 6 MB; the broker allows fewer orders than that."""

READ_BYTES = 65_536

FINAL = 200
"""The first status of an answer proper (RFC 9110, 15.2); the library itself goes on after a 100 alone."""

MAX_IDLE = 32
"""Idle connections kept per origin; a worker has 16 threads."""

DISTRUST_SECONDS = 3600.0
"""A peer that takes a second request on a connection and drops it makes a doubt of an order: of one, not of each."""

IDLE_SECONDS = 50.0
"""Balancers drop an idle connection after 60 s or more; one that is older than this is not worth a try."""


class NoAnswerYetError(Exception):
    """The peer announced an answer (1xx) that nobody waits for: it would be taken for the next request's."""


class BodyTooLargeError(Exception):
    """The answer exceeds MAX_BODY_BYTES."""


class Origin(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of an answer."""

    status: int
    headers: Mapping[str, str]


class _Answer(HTTPResponse):
    """The library's, which reads ahead and throws away what it has read past the answer's end."""

    def __init__(
        self, sock: DeadlineSocket | DeadlineTlsSocket, debuglevel: int = 0, method: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method)
        assert sock.watch is not None
        self.fp = AnswerReader(self.fp.detach(), sock.watch)


class DeadlineConnection(HTTPConnection):
    """urllib3's connection with our sockets, opened and written only where we say so."""

    response_class = _Answer

    def __init__(self, origin: Origin, resolver: Resolver, tls: ssl.SSLContext | None) -> None:
        super().__init__(origin.host, origin.port)
        self.origin = origin
        self.answered_at: float | None = None
        self.asker: Deadline | None = None
        """Whom it answered last, by the deadline that is his alone, when an order of his may follow."""
        self._resolver = resolver
        self._tls = tls
        self._request = bytearray()

    # --- open

    def open(self, watch: Watch, connect_timeout_s: float) -> None:
        """Resolve, connect and shake hands: all of it within `connect_timeout_s` and the call's deadline."""
        watch.cap(connect_timeout_s)
        watch.phase = Phase.DNS
        addresses = self._resolver.addresses(self.origin.host, self.origin.port, watch.left())
        watch.phase = Phase.CONNECT
        try:
            plain = self._connect_to_any([(each.family, each.sockaddr) for each in addresses], watch)
        except OSError:
            self._resolver.forget(self.origin.host, self.origin.port)
            raise
        if self._tls is None:
            plain.watch = watch
            self.sock = plain
        else:
            watch.phase = Phase.TLS
            self.sock = self._wrap(plain, self._tls, watch)
        watch.uncap()
        watch.phase = Phase.BEFORE_SEND

    def _connect_to_any(
        self, addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]], watch: Watch
    ) -> DeadlineSocket:
        """The first address that answers. Each gets an equal part of what is left, so that a dead first one (an
        IPv6 route that swallows packets, say) does not eat the time of the second.
        """
        failed: OSError = OSError("the name has no address")
        for position, (family, sockaddr) in enumerate(addresses):
            sock: DeadlineSocket | None = None
            try:
                sock = DeadlineSocket(family, socket.SOCK_STREAM)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(watch.left() / (len(addresses) - position))
                sock.connect(sockaddr)
            except OSError as error:
                failed = error
                if sock is not None:
                    sock.close()
            else:
                return sock
        raise failed

    def _wrap(self, plain: DeadlineSocket, tls: ssl.SSLContext, watch: Watch) -> DeadlineTlsSocket:
        try:
            sock = tls.wrap_socket(plain, server_hostname=self.origin.host, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        assert isinstance(sock, DeadlineTlsSocket)
        try:
            sock.handshake(watch)
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def is_open(self) -> bool:
        return self.sock is not None

    def is_quiet(self) -> bool:
        """Open, and the peer has neither closed nor said anything unasked."""
        return self.is_connected

    # --- write

    def prepare(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Compose the request in memory. Raises ValueError for what cannot be written (a line break in a header)."""
        self._request.clear()
        self.request(method, target, body=body, headers=headers, preload_content=False)

    def send(self, data: bytes) -> None:  # type: ignore[override]  # all it is ever given here
        """Called by http.client for the head and again for the body: collected, to leave in one write."""
        self._request += data

    def flush(self, watch: Watch) -> float:
        """Write the prepared request. Returns when the last byte was written, in monotonic seconds."""
        sock = self._watched(watch)
        data = bytes(self._request)
        self._request.clear()
        sock.sendall(data)
        return watch.written_at or monotonic()

    def _watched(self, watch: Watch) -> DeadlineSocket | DeadlineTlsSocket:
        sock = self.sock
        assert isinstance(sock, DeadlineSocket | DeadlineTlsSocket)
        sock.watch = watch
        return sock

    # --- read

    def receive(self, watch: Watch) -> tuple[Head, bytes]:
        """Read the whole answer; `is_open` afterwards when the peer keeps the connection."""
        self._watched(watch)
        watch.phase = Phase.RECEIVE
        response = self.getresponse()
        try:
            if response.status < FINAL:
                raise NoAnswerYetError
            parts: list[bytes] = []
            size = 0
            while part := response.read(READ_BYTES):  # at most so much after decompression too
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise BodyTooLargeError
                parts.append(part)
        finally:
            response.close()
        if watch.said_more or (isinstance(self.sock, DeadlineTlsSocket) and self.sock.pending()):
            # Said unasked: "408, I close" after the answer, say. It would be taken for the next request's.
            self.close()
        self.answered_at = monotonic()
        return Head(response.status, response.headers), b"".join(parts)


class DeadlineTlsConnection(DeadlineConnection):
    """The same over TLS. Only the default port, which decides about the Host header, differs."""

    default_port = 443  # type: ignore[misc]  # a class variable in urllib3, an instance's in the stubs


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Certificates and host names are checked, TLS 1.2 at least. Reads nothing from the environment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file or certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = DeadlineTlsSocket
    return context


class Connections:
    """The idle connections and known addresses of one process. Safe for many threads."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file
        self._resolver = Resolver()
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[DeadlineConnection]] = {}
        self._distrusted_until: dict[Origin, float] = {}

    def new(self, origin: Origin) -> DeadlineConnection:
        """A connection that is not open yet."""
        if origin.scheme == "http":
            return DeadlineConnection(origin, self._resolver, None)
        with self._lock:
            tls = self._tls = self._tls or tls_context(self._ca_file)
        return DeadlineTlsConnection(origin, self._resolver, tls)

    def idle(self, origin: Origin) -> DeadlineConnection | None:
        """The idle connection that was used last and still seems alive; one that an order may follow on only where there
        is no other.
        """
        while True:
            with self._lock:
                waiting = self._idle.get(origin)
                connection = waiting.pop(_least_wanted(waiting)) if waiting else None
            if connection is None:
                return None
            if monotonic() - (connection.answered_at or 0) < IDLE_SECONDS and connection.is_quiet():
                return connection
            connection.close()

    def of_asker(self, origin: Origin, asker: Deadline) -> DeadlineConnection | None:
        """The idle connection that answered this very `asker` last, if nobody has used it since."""
        with self._lock:
            waiting = self._idle.get(origin, [])
            found = next((each for each in waiting if each.asker is asker), None)
            if found is not None:
                waiting.remove(found)
        return found

    def distrust(self, origin: Origin) -> None:
        """It dropped what is no read on a connection that had just answered: no other follows on a used one for a while."""
        self._distrusted_until[origin] = monotonic() + DISTRUST_SECONDS

    def trusts(self, origin: Origin) -> bool:
        return monotonic() >= self._distrusted_until.get(origin, 0.0)

    def give_back(self, connection: DeadlineConnection, asker: Deadline | None = None) -> None:
        """Keep an open connection whose last answer was read whole; close any other. `asker`: whose order may follow."""
        connection.asker = asker
        if connection.is_open and connection.answered_at is not None:
            with self._lock:
                waiting = self._idle.setdefault(connection.origin, [])
                if len(waiting) < MAX_IDLE:
                    waiting.append(connection)
                    return
        connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            connections = [each for waiting in self._idle.values() for each in waiting]
            self._idle.clear()
        for connection in connections:
            connection.close()


def _least_wanted(waiting: list[DeadlineConnection]) -> int:
    """The place of the one that was used last of those that no order will follow on, else the longest-waiting one's."""
    now = monotonic()
    for place in range(len(waiting) - 1, -1, -1):
        asker = waiting[place].asker
        if asker is None or asker.passed(now):
            return place
    return 0
