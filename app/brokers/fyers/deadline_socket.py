"""Sockets that keep an absolute deadline and count what was written.

The time-outs of requests and urllib3 bound one read each: a peer that drips one byte a second keeps a call alive for
ever. Here every send and every receive is re-armed to what is left of the whole call, and the same hook counts the
application's bytes, so that "nothing was sent" is a number and never a guess from an exception's class.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TLS_RECORD_BYTES = 16_384
"""Plaintext of one TLS record. Writing record by record keeps the count exact: a record that did not leave whole
cannot be decrypted by the peer, so a failed write delivered nothing of it.
"""


class Phase(StrEnum):
    """How far a call had come. Everything up to BEFORE_SEND wrote no byte of the request."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    BEFORE_SEND = "before_send"
    SEND = "send"
    RECEIVE = "receive"


class TransportError(Exception):
    """A call that brought no whole answer. Its text names method and path, never a query, header or body.

    `bytes_written` counts bytes of the HTTP request handed to the socket (never those of a TLS handshake). Zero, and
    only zero, proves that nothing was sent. `written_at` is monotonic seconds, None when the request never left whole.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        bytes_written: int = 0,
        bytes_read: int = 0,
        timed_out: bool = False,
        written_at: float | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.bytes_written = bytes_written
        self.bytes_read = bytes_read
        self.timed_out = timed_out
        self.written_at = written_at

    @property
    def sent(self) -> bool:
        """Whether any byte may have reached the broker: by the count alone."""
        return self.bytes_written > 0


class Watch:
    """The bounds and counters of one attempt. Times are seconds on the monotonic clock."""

    __slots__ = (
        "_call_ends_at",
        "at",
        "bytes_read",
        "bytes_written",
        "has_whole_answer",
        "phase",
        "said_more",
        "timed_out",
        "written_at",
    )

    def __init__(self, ends_at: float) -> None:
        self._call_ends_at = ends_at
        self.at = ends_at
        self.phase = Phase.BEFORE_SEND
        self.bytes_written = 0
        self.bytes_read = 0
        self.timed_out = False
        self.written_at: float | None = None
        self.has_whole_answer = False
        self.said_more = False
        """Whether the peer has said more than the answer: that belongs to no request, and must answer none."""

    def cap(self, seconds: float) -> None:
        """Give the next phase `seconds` at most, and never more than the call has left."""
        self.at = min(self._call_ends_at, monotonic() + seconds)

    def uncap(self) -> None:
        self.at = self._call_ends_at

    def left(self) -> float:
        """Seconds left, above zero. Raises TimeoutError when there are none."""
        left = self.at - monotonic()
        if left <= 0:
            self.timed_out = True
            raise TimeoutError("the call's time is used up")
        return left

    def write(
        self, sock: socket.socket, send: Callable[[memoryview], int], data: ReadableBuffer, piece: int
    ) -> None:
        """Write all of `data` in pieces of at most `piece` bytes."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            part = view[done : done + piece]
            sock.settimeout(self.left())
            self.phase = Phase.SEND
            # Counted before, corrected after: an exception of another kind that strikes between the system call
            # and the correction (a signal handler's, say) must leave the count too high, never too low.
            self.bytes_written += len(part)
            try:
                sent = send(part)
            except OSError as error:
                self.bytes_written -= len(part)  # a failed send took nothing: the kernel says so
                self.timed_out = self.timed_out or isinstance(error, TimeoutError)
                raise
            self.bytes_written -= len(part) - sent
            done += sent
        self.written_at = monotonic()

    def read(self, sock: socket.socket, receive: Callable[[], int]) -> int:
        """One receive, bounded and counted; `receive` returns the number of bytes it got."""
        if self.has_whole_answer:
            return 0
        sock.settimeout(self.left())
        try:
            got = receive()
        except TimeoutError:
            self.timed_out = True
            raise
        self.bytes_read += got
        return got


class AnswerReader(io.BufferedReader):
    """Reads one answer, and tells its watch, when it is closed, whether it holds more than that."""

    def __init__(self, raw: io.RawIOBase, watch: Watch) -> None:
        super().__init__(raw)
        self._watch = watch

    def close(self) -> None:
        if not self.closed:
            self._watch.has_whole_answer = True  # so that peek() looks into its buffer alone
            with suppress(OSError):  # the answer was cut off, and so is its connection
                self._watch.said_more = bool(self.peek(1))
        super().close()


def _size(data: ReadableBuffer) -> int:
    return memoryview(data).nbytes


class DeadlineSocket(socket.socket):
    """A TCP socket under a Watch. Without one it is an ordinary socket."""

    watch: Watch | None = None

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        if self.watch is None:
            super().sendall(data, flags)
        else:
            self.watch.write(self, super().send, data, piece=_size(data) or 1)

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        if self.watch is None:
            return super().send(data, flags)
        self.sendall(data, flags)
        return _size(data)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        receive = super().recv_into
        if self.watch is None:
            return receive(buffer, nbytes, flags)
        return self.watch.read(self, lambda: receive(buffer, nbytes, flags))

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if self.watch is None:
            return super().recv(bufsize, flags)
        room = bytearray(bufsize)
        return bytes(room[: self.recv_into(room, bufsize, flags)])


class DeadlineTlsSocket(ssl.SSLSocket):
    """The same over TLS. Made by an SSLContext whose `sslsocket_class` is this class.

    OpenSSL's own handshake, read and write each keep their time-out as a bound on the whole step (CPython's _ssl.c
    computes a deadline on entry), so that re-arming before each of them is enough.
    """

    watch: Watch | None = None

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        if self.watch is None:
            super().sendall(data, flags)
        else:
            self.watch.write(self, super().send, data, piece=TLS_RECORD_BYTES)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        if self.watch is None:
            return super().send(data, flags)
        self.sendall(data, flags)
        return _size(data)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        receive = super().recv_into
        if self.watch is None:
            return receive(buffer, nbytes, flags)
        return self.watch.read(self, lambda: receive(buffer, nbytes, flags))

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self.watch is None:
            return super().recv(buflen, flags)
        room = bytearray(buflen)
        return bytes(room[: self.recv_into(room, buflen, flags)])

    def handshake(self, watch: Watch) -> None:
        """Take the watch and shake hands within it."""
        self.watch = watch
        self.settimeout(watch.left())
        self.do_handshake()
