"""A connection of the worker's, the request that has come in on it, and what the system says of its socket."""

from __future__ import annotations

import fcntl
import io
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any

from gunicorn.http import errors as http_errors
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn

from app.serving.receive import Incoming


class Received(Unreader):  # type: ignore[misc]
    """The bytes of a request, and then the end: a parser that wants more is told so, and never waits."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.buf = io.BytesIO()
        self.buf.write(data)

    def chunk(self, size_hint: int | None = None) -> bytes:
        return b""


class Connection(TConn):  # type: ignore[misc]
    """One connection and the request that comes in on it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.initialized = self.data_ready = True  # nothing of gunicorn's own waiting
        self.incoming: Incoming
        self.deadline = 0.0
        self.began: float | None = None
        self.has_begun = False
        self.is_whole = True
        self.drained = 0


def unread(sock: socket.socket) -> int:
    """Bytes of answers that the other side has not acknowledged; 0 where the system does not say."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def readable(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """A malformed chunk is the sender's fault, and met only when the application reads: it knows ValueError as that."""

    def checked(size: int) -> bytes:
        try:
            return read(size)
        except http_errors.ParseException as error:
            raise ValueError(type(error).__name__) from error

    return checked
