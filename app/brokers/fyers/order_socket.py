"""Fyers' order websocket, as a bell: it says that something has happened, and never what.

The protocol is the SDK's (fyers_apiv3/FyersWebsocket/order_ws.py): the header `authorization: APPID:TOKEN`, one
subscription, the text "ping" every 10 s which is answered by "pong". The SDK's own class is not used: it gives up after
five tries, keeps the token of its start for ever and cannot be stopped for certain.

Whatever the other side does costs this process no more than one thread that waits: connecting, shaking hands and every
frame have an end in time and in bytes, frames are read at a bounded rate, silence ends a connection, and after a failure
the next try waits longer each time. The token stands in the header alone. Of an exception only the class is told, since
the library quotes the peer's answer in the text.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
)

from app.brokers.fyers.connection import Connections, Origin
from app.brokers.fyers.deadline_socket import DeadlineSocket, DeadlineTlsSocket
from app.brokers.fyers.order_messages import MAX_BYTES, SUBSCRIPTION, BoundedWatch, Rate, SocketLost, meaning
from app.service.ports import Clock, Tokens

log = logging.getLogger(__name__)

NO_TOKEN = "no valid token"  # noqa: S105 - words for a person
NO_TOKEN_LOOKS = 5
"""A night without a login must not ask the token store every second."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. Only tests have another."""

    connect: float = 5.0
    frame: float = 5.0
    ping: float = 10.0
    silence: float = 25.0
    first_wait: float = 1.0
    most_wait: float = 60.0
    steady: float = 30.0
    """A connection that lasted so long begins anew with `first_wait`."""
    look: float = 1.0
    """How often a connected or waiting thread looks whether the token has changed."""


@dataclass
class OrderSocket:
    """Implements service.order_feed.OrderFeed. `count` is told in a word what happens, for the figures."""

    url: str
    app_id: str
    tokens: Tokens
    clock: Clock
    count: Callable[[str], None]
    pace: Pace = field(default_factory=Pace)
    ca_file: str | None = None
    _listener: _Listener | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def start(self, wake: Callable[[], None]) -> None:
        with self._lock:
            if self._listener is None or not self._listener.thread.is_alive():
                self._listener = _Listener(self, wake)
                self._listener.thread.start()

    def stop(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def join(self, timeout_s: float) -> bool:
        """After `stop`, for tests: whether no thread of it is left."""
        ends = monotonic() + timeout_s
        for thread in [t for t in threading.enumerate() if getattr(t, "feed", None) is self]:
            thread.join(max(0.0, ends - monotonic()))
        return not any(getattr(t, "feed", None) is self for t in threading.enumerate())

    @property
    def connected(self) -> bool:
        listener = self._listener
        return listener is not None and listener.connected

    def problem(self) -> str | None:
        listener = self._listener
        if listener is None or listener.connected:
            return None
        return f"not connected ({listener.why}): fills are found by polling alone"


class _Thread(threading.Thread):
    feed: OrderSocket


class _Listener:
    """From one start to its stop."""

    def __init__(self, feed: OrderSocket, wake: Callable[[], None]) -> None:
        self._feed, self._wake = feed, wake
        self._connections = Connections(feed.ca_file)
        self._stopped = threading.Event()
        self._sock: DeadlineSocket | DeadlineTlsSocket | None = None
        self._sock_lock = threading.Lock()
        self.connected = False
        self.why = "connecting"
        self.thread = _Thread(target=self._run, daemon=True, name="order-socket")
        self.thread.feed = feed

    def stop(self) -> None:
        self._stopped.set()
        with self._sock_lock:
            if self._sock is not None:
                with suppress(OSError):  # TCP alone: TLS belongs to the thread that reads
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    # -- the thread

    def _run(self) -> None:
        pace, wait_s = self._feed.pace, self._feed.pace.first_wait
        while not self._stopped.is_set():
            token = self._token()
            if token is None:
                if self.why != NO_TOKEN:
                    self.why = NO_TOKEN
                    self._feed.count("no_token")
                self._stopped.wait(NO_TOKEN_LOOKS * pace.look)
                continue
            began = monotonic()
            word = self._listen(token)
            self.connected = False
            if self._stopped.is_set():
                break
            self.why = word
            self._feed.count(word)
            if word == "new_token":
                wait_s = pace.first_wait
                continue
            if monotonic() - began >= pace.steady:
                wait_s = pace.first_wait
            log.warning("order socket: %s; polling goes on, next try within %.0f s", word, wait_s)
            self._wait(token, wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads instances, hides nothing
            wait_s = min(wait_s * 2, pace.most_wait)

    def _token(self) -> str | None:
        feed = self._feed
        try:
            return feed.tokens.current(feed.clock.now())
        except Exception as error:  # noqa: BLE001 - whatever a store says, this thread goes on and asks again
            log.warning("order socket: the token cannot be had: %s", type(error).__name__)
            return None

    def _wait(self, token: str, wait_s: float) -> None:
        """Until the next try; a new login ends it early."""
        ends = monotonic() + wait_s
        while (left := ends - monotonic()) > 0:
            if self._stopped.wait(min(left, self._feed.pace.look)) or self._token() not in (token, None):
                return

    def _listen(self, token: str) -> str:
        """One connection from its beginning to its end, and in a word why it ended."""
        try:
            try:
                self._hear(self._opened(token), token)
            finally:
                self._close()
        except SocketLost as error:
            return str(error)
        except WebSocketBadStatusException as error:
            return f"refused_{error.status_code}" if error.status_code in _STATUSES else "refused"
        except (WebSocketTimeoutException, TimeoutError):
            return "timed_out"
        except WebSocketConnectionClosedException:
            return "closed"
        except (WebSocketException, UnicodeError):
            return "protocol_error"
        except (OSError, ValueError):
            return "unreachable" if not self.connected else "closed"
        except Exception as error:  # noqa: BLE001 - a library's own mistake must not end the thread: it is tried again
            log.error("order socket: %s", type(error).__name__)  # noqa: TRY400 - a text or trace may quote the peer
            return "failed"
        return "new_token"

    def _opened(self, token: str) -> WebSocket:
        """Connected, shaken hands and subscribed, within `connect` seconds and MAX_BYTES."""
        feed, parts = self._feed, urlsplit(self._feed.url)
        tls = parts.scheme == "wss"
        port = parts.port or (443 if tls else 80)
        connection = self._connections.new(Origin("https" if tls else "http", parts.hostname or "", port))
        watch = BoundedWatch(monotonic() + feed.pace.connect)
        connection.open(watch, feed.pace.connect)
        sock = connection.sock
        assert isinstance(sock, DeadlineSocket | DeadlineTlsSocket)
        with self._sock_lock:
            self._sock = sock
        if self._stopped.is_set():
            raise SocketLost("stopped")
        sock.watch = watch
        ws = WebSocket()
        # A socket is given, so that the library asks neither a name server nor the environment for a proxy; and it must
        # not follow a redirect, which would carry the token elsewhere.
        ws.connect(  # type: ignore[no-untyped-call]
            feed.url,
            socket=sock,
            header={"authorization": f"{feed.app_id}:{token}"},
            suppress_origin=True,
            redirect_limit=0,
        )
        ws.send_text(SUBSCRIPTION)
        return ws

    def _close(self) -> None:
        """No farewell: the other side may not listen."""
        with self._sock_lock:
            sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _hear(self, ws: WebSocket, token: str) -> None:
        """Until the token is another one. Raises whatever ends the connection otherwise."""
        pace, sock = self._feed.pace, self._sock
        if sock is None:
            raise SocketLost("stopped")
        self.connected = True
        self._feed.count("connected")
        log.info("order socket: connected")
        self._wake()  # what changed before the subscription is not told again
        heard_at = pinged_at = monotonic()
        rate, message = Rate(self._stopped), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            while not self._stopped.is_set():
                now = monotonic()
                if now - heard_at >= pace.silence:
                    raise SocketLost("silent")
                if now - pinged_at >= pace.ping:
                    sock.watch, pinged_at = BoundedWatch(now + pace.frame), now
                    ws.send_text("ping")
                if self._token() != token:
                    return
                due_s = min(heard_at + pace.silence, pinged_at + pace.ping) - now
                if not _is_ready(sock, selector, max(0.0, min(pace.look, due_s))):
                    continue
                sock.watch = BoundedWatch(monotonic() + pace.frame)
                frame = ws.recv_frame()  # type: ignore[no-untyped-call]
                heard_at = monotonic()
                self._took(ws, frame, message)
                rate()

    def _took(self, ws: WebSocket, frame: ABNF, message: bytearray) -> None:
        if frame.opcode == ABNF.OPCODE_CLOSE:
            raise SocketLost("closed")
        if frame.opcode == ABNF.OPCODE_PING:
            ws.pong(frame.data)
        elif frame.opcode != ABNF.OPCODE_PONG:
            message += frame.data if isinstance(frame.data, bytes) else frame.data.encode()
            if len(message) > MAX_BYTES:
                raise SocketLost("too_large")
            if frame.fin:
                word = meaning(bytes(message))
                message.clear()
                self._feed.count(word)
                if word == "refused":
                    raise SocketLost(word)
                if word in ("hint", "subscribed"):
                    self._wake()


_STATUSES = frozenset(status.value for status in HTTPStatus)


def _is_ready(
    sock: DeadlineSocket | DeadlineTlsSocket, selector: selectors.BaseSelector, wait_s: float
) -> bool:
    """Whether something can be read; TLS may have decrypted more than the last frame."""
    return bool((isinstance(sock, ssl.SSLSocket) and sock.pending()) or selector.select(wait_s))
