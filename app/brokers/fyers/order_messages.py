"""What is said on Fyers' order websocket, and how much of it is listened to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from time import monotonic

from app.brokers.fyers.deadline_socket import Watch

SUBSCRIPTION = '{"T":"SUB_ORD","SLIST":["orders","trades","positions"],"SUB_T":1}'
HINTS = ("orders", "trades", "positions")
SUBSCRIBED = 1605
MAX_BYTES = 65_536
"""Of one frame, of a message in several frames, and of the whole handshake. An order's message has about 1,500."""
MAX_FRAMES_PER_S = 100
"""More are left waiting in the kernel: reading them must not take the interpreter from alerts."""


def meaning(message: bytes) -> str:
    """In a word what a message is: hint, pong, subscribed, refused, other or rubbish.

    `refused` is an error of the socket itself, such as an expired token: it goes on without ever telling anything.
    """
    if message == b"pong":
        return "pong"
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return "rubbish"
    if not isinstance(said, dict):
        return "rubbish"
    if any(name in said for name in HINTS):
        return "hint"
    code = said.get("code")
    if code == SUBSCRIBED:
        return "subscribed"
    return "refused" if isinstance(code, int) and code < 0 else "other"


class SocketLost(Exception):
    """The connection is no use any more; the text is a word of ours."""


class BoundedWatch(Watch):
    """A Watch that ends by bytes too: the library would take a frame of any length."""

    __slots__ = ()

    def read(self, sock: socket.socket, receive: Callable[[], int]) -> int:
        got = super().read(sock, receive)
        if self.bytes_read > MAX_BYTES:
            raise SocketLost("too_large")
        return got


class Rate:
    """Called after each frame: waits where a second has had its frames."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._since, self._frames = monotonic(), 0

    def __call__(self) -> None:
        left = self._since + 1.0 - monotonic()
        if left <= 0:
            self._since, self._frames = monotonic(), 0
        self._frames += 1
        if left > 0 and self._frames >= MAX_FRAMES_PER_S:
            self._stopped.wait(left)
