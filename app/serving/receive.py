"""A request as it comes in, byte by byte: when it is whole, and when it has become too much. Reads no socket itself.

Only the framing is looked at, to know when to hand a request over; what it says is parsed by gunicorn, which refuses
what is malformed. Where the two disagree, gunicorn finds the end of the data and not a thread that waits for more.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto

MAX_HEAD_BYTES = 32_768
"""Request line and headers together; a browser's are under 4 KB."""
CHUNKING = 4
"""What a chunked body may take on the wire, as a multiple of what it may hold."""
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,256})?\r\n")
MAX_SIZE_LINE_BYTES = 300


TITLES = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


def refusal(status: int) -> bytes:
    """What is answered where no application was asked: problem details, and nothing of what was sent."""
    title = TITLES[status]
    code = title.lower().replace(" ", "_")
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "code": code, "outcome": "refused"}
    )
    head = (
        f"HTTP/1.1 {status} {title}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


class Progress(Enum):
    MORE = auto()
    WHOLE = auto()
    CUT = auto()
    """Handed over as far as it came: the application refuses it by what is there, and the connection ends."""
    HEAD_TOO_LARGE = auto()


class Incoming:
    """One request's bytes. `add` may be called until it gives something other than MORE."""

    def __init__(self, max_body_bytes: int) -> None:
        self.data = bytearray()
        self.wants_continue = False
        self._max_body = max_body_bytes
        self._head_end = 0
        self._wanted = 0
        """Bytes in all, for a body of known length."""
        self._at = -1
        """Where the next chunk's size line begins; -1: the body has a length or there is none."""
        self._chunked_bytes = 0

    def add(self, data: bytes) -> Progress:
        searched = max(0, len(self.data) - len(_END) + 1)
        self.data += data
        if not self._head_end:
            end = self.data.find(_END, searched)
            if (end if end >= 0 else len(self.data)) > MAX_HEAD_BYTES:
                return Progress.HEAD_TOO_LARGE
            if end < 0:
                return Progress.MORE
            self._read_head(end + len(_END))
        if self._at >= 0:
            return self._chunks()
        if self._wanted - self._head_end > self._max_body:
            return Progress.CUT
        return Progress.WHOLE if len(self.data) >= self._wanted else Progress.MORE

    def _read_head(self, end: int) -> None:
        head = bytes(self.data[: end - 2])
        self._head_end = end
        self.wants_continue = _CONTINUE.search(head) is not None
        if _CHUNKED.search(head):
            self._at = end
            return
        length = _LENGTH.search(head)
        self._wanted = end + (int(length[1]) if length else 0)

    def _chunks(self) -> Progress:
        """Skip whole chunks; each is looked at once."""
        while True:
            if self._chunked_bytes > self._max_body:
                return Progress.CUT
            if len(self.data) - self._head_end > CHUNKING * self._max_body:
                return Progress.CUT
            line = _SIZE.match(self.data, self._at)
            if line is None:
                # Longer than any size line, or one that is none: refused by whoever parses it.
                is_line = self.data.find(b"\r\n", self._at, self._at + MAX_SIZE_LINE_BYTES) < 0
                short = len(self.data) - self._at < MAX_SIZE_LINE_BYTES
                return Progress.MORE if is_line and short else Progress.CUT
            size = int(line[1], 16)
            if size == 0:
                ends = self.data.startswith(b"\r\n", line.end()) or self.data.find(_END, line.end() - 2) >= 0
                return Progress.WHOLE if ends else Progress.MORE
            if self._chunked_bytes + size > self._max_body:
                # Enough of it to show that it is too large, and not the rest.
                held = self._chunked_bytes + len(self.data) - line.end()
                return Progress.CUT if held > self._max_body else Progress.MORE
            if len(self.data) < line.end() + size + 2:
                return Progress.MORE
            self._chunked_bytes += size
            self._at = line.end() + size + 2
