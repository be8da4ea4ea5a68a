"""The transport to Fyers: one attempt, a real deadline, a count of the bytes written.

Nothing here retries an order, follows a redirect or reads a proxy from the environment, because nothing here could:
requests' session and urllib3's pool, which do those things, are left out and only urllib3's connection is used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from app.brokers.fyers.connection import Connections, DeadlineConnection, Origin
from app.brokers.fyers.deadline_socket import Phase, TransportError, Watch
from app.brokers.fyers.sdk import Calls, calls, load
from app.brokers.fyers.sdk_service import ExchangeService
from app.domain.deadline import Deadline

__all__ = ["Exchange", "FyersClient", "Phase", "Reply", "TransportError"]

MIN_TOKEN_BYTES = 16
"""Fyers' tokens are JWTs of hundreds."""
JUST_ANSWERED_SECONDS = 2.0
"""An order may use a connection that answered its own request so lately; no balancer drops one that soon."""

BeforeSend = Callable[[], None]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, whatever its status. `headers` ignore case; `written_at` is monotonic seconds."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    written_at: float = 0.0

    def json_or_none(self) -> object:
        """The body as JSON with Decimal for every fraction, None when it is not strict JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    origin: Origin
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)

    @property
    def name(self) -> str:
        """Safe to show: no query."""
        return f"{self.method} {self.target.partition('?')[0]}"


class FyersClient:
    """Keeps the connections of this process. Safe for many threads; each takes an Exchange of its own.

    `connect_timeout_s` bounds name, TCP and TLS together, `read_timeout_s` the whole answer after the write; both
    only shorten what the exchange's deadline leaves.
    """

    def __init__(
        self,
        api_url: str,
        data_url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: str | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.data_url = data_url.rstrip("/")
        self.connect_timeout_s = connect_timeout_s
        self.read_timeout_s = read_timeout_s
        self._ca_file = ca_file
        self._connections = Connections(ca_file)
        self._process = os.getpid()

    def exchange(
        self, deadline: Deadline, authorization: str = "", connect_by: Deadline | None = None
    ) -> Exchange:
        """One request's conversation. `authorization` is `<app id>:<access token>`, empty for a login."""
        return Exchange(self, self._own_connections(), deadline, authorization, connect_by)

    def _own_connections(self) -> Connections:
        """After a fork the parent's connections are shared with it, and two must not speak on one: start anew."""
        if self._process != os.getpid():
            self._connections, self._process = Connections(self._ca_file), os.getpid()
        return self._connections

    def load(self) -> None:
        """Import the SDK, at start rather than in the first alert's two seconds."""
        load()

    def close(self) -> None:
        self._own_connections().close()


class Exchange:
    """One flow of calls with one deadline, for one thread.

    A read (GET) may use an idle connection; when that turns out dead before any byte of an answer, the read alone is
    repeated once on a new one. Whatever is no GET goes out once, on a connection that is new or has just answered
    this very exchange, or the one before it of the same request: an idle one may be dead, and a dead one would turn
    an order into a doubt. One request is known by its `connect_by`, which was the deadline of its reads.
    """

    def __init__(
        self,
        client: FyersClient,
        connections: Connections,
        deadline: Deadline,
        authorization: str,
        connect_by: Deadline | None = None,
    ) -> None:
        self.client = client
        self._connections = connections
        self._deadline = deadline
        self._connect_by = connect_by
        self._authorization = authorization
        self._held: dict[Origin, DeadlineConnection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._held:
            # After the conversation that sends a request's order, no other of its orders follows.
            asker = self._deadline if self._connect_by is None else None
            self._connections.give_back(self._held.popitem()[1], asker)

    def sdk(self, before_send: BeforeSend | None = None) -> Calls:
        """The SDK's methods on this exchange: `exchange.sdk(check).place_order(payload)`.

        `before_send` is called once the connection stands (TCP and TLS) and right before the first byte; what it
        raises comes through unchanged, and no byte was written. Its own time is the caller's. Where the peer of a used
        connection has gone meanwhile a new one is made, and `before_send` is called again for that.
        """
        return calls(ExchangeService(self, before_send), self._authorization)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        before_send: BeforeSend | None = None,
    ) -> Reply:
        """Any request, by its whole URL. Raises TransportError."""
        origin, target = _split(url)
        request = _Request(method, origin, target, _COMMON_HEADERS | dict(headers or {}), body)
        if method != "GET":
            return self._send_once(request, before_send)
        used = self._used_connection(origin)
        if used is not None:
            try:
                return self._attempt(used, request, before_send)
            except TransportError as failure:
                if not _was_dead(failure):
                    raise
        return self._attempt(self._connections.new(origin), request, before_send)

    def _used_connection(self, origin: Origin) -> DeadlineConnection | None:
        held = self._held.pop(origin, None)
        if held is None or held.is_quiet():
            return held or self._connections.idle(origin)
        held.close()  # what its peer has said unasked would answer this read, and the read's answer an order
        return None

    def _send_once(self, request: _Request, before_send: BeforeSend | None) -> Reply:
        connection = self._sure_connection(request.origin)
        if connection.is_open:
            try:
                return self._attempt(connection, request, before_send)
            except TransportError as failure:
                if _was_dead(failure):
                    self._connections.distrust(request.origin)
                # Not a repeat: the write was not even tried.
                if failure.phase is not Phase.BEFORE_SEND or failure.sent or failure.timed_out:
                    raise
            connection = self._connections.new(request.origin)
        return self._attempt(connection, request, before_send)

    def _sure_connection(self, origin: Origin) -> DeadlineConnection:
        held = self._held.pop(origin, None)
        if held is None and self._connect_by is not None:
            held = self._connections.of_asker(origin, self._connect_by)
        if held is not None:
            is_fresh = monotonic() - (held.answered_at or 0) < JUST_ANSWERED_SECONDS
            if is_fresh and held.is_quiet() and self._connections.trusts(origin):
                return held
            held.close()
        return self._connections.new(origin)

    def _attempt(
        self, connection: DeadlineConnection, request: _Request, before_send: BeforeSend | None
    ) -> Reply:
        """One attempt. The connection is held for the next call when the answer was read whole, else closed."""
        watch = Watch(self._deadline.at)
        used = connection.is_open
        try:
            _typed(request, watch, lambda: self._stand(connection, request, watch))
            if before_send is not None:
                before_send()
            reply = _typed(request, watch, lambda: self._talk(connection, request, watch, used=used))
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            self._held[request.origin] = connection
        return reply

    def _stand(self, connection: DeadlineConnection, request: _Request, watch: Watch) -> None:
        connection.prepare(request.method, request.target, request.body, request.headers)
        if not connection.is_open:
            bound = self.client.connect_timeout_s
            if self._connect_by is not None:
                bound = min(bound, self._connect_by.left(time.monotonic()))
            connection.open(watch, bound)

    def _talk(self, connection: DeadlineConnection, request: _Request, watch: Watch, *, used: bool) -> Reply:
        if used and request.method != "GET" and not connection.is_quiet():
            # The last check took its time. Nothing was tried: it goes out on a new one.
            raise ConnectionResetError("the peer closed the connection before the send")
        written_at = connection.flush(watch)
        watch.cap(self.client.read_timeout_s)
        head, body = connection.receive(watch)
        # What an answer says goes into rows and logs; one that quotes our token must not take it there.
        # Only a whole one: a short word, as tests have, stands in any answer, and the answer would be spoilt.
        token = self._authorization.partition(":")[2].encode()
        safe = body.replace(token, b"***") if len(token) >= MIN_TOKEN_BYTES else body
        return Reply(head.status, head.headers, safe, written_at)


_COMMON_HEADERS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "tradingview-fyers-options"}


def _was_dead(failure: TransportError) -> bool:
    """Whether a used connection failed before any byte of an answer, and not for want of time."""
    return failure.phase in {Phase.SEND, Phase.RECEIVE} and not failure.bytes_read and not failure.timed_out


def _typed(request: _Request, watch: Watch, step: Callable[[], _T]) -> _T:
    """Do one step; whatever it raises becomes a TransportError, expected or not: the count of bytes has to reach the
    caller, who could otherwise not tell an order that was never sent from one in doubt.
    """
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - the reason stands above
        failure = _failure(request, watch, error)
        # http.client's ValueError quotes the header it cannot write, and that may be the token: so it is neither
        # the cause nor, raised out here, the context.
        cause = None if isinstance(error, ValueError) else error
    raise failure from cause


def _failure(request: _Request, watch: Watch, error: Exception) -> TransportError:
    timed_out = watch.timed_out or isinstance(error, TimeoutError)
    if timed_out:
        what = "out of time"
    elif isinstance(error, OSError):
        what = str(error)  # the system's words about a socket or a certificate
    else:
        what = type(error).__name__
    return TransportError(
        f"{request.name}: {what} ({watch.phase}, {watch.bytes_written} bytes written)",
        phase=watch.phase,
        bytes_written=watch.bytes_written,
        bytes_read=watch.bytes_read,
        timed_out=timed_out,
        written_at=watch.written_at,
    )


@lru_cache(maxsize=512)
def _split(url: str) -> tuple[Origin, str]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an http or https URL with a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Origin(parts.scheme, parts.hostname, port), target
