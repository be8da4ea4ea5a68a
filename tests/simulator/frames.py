"""Frames of a websocket, as a server writes and reads them."""

from __future__ import annotations

import select
import socket
import ssl
import struct

TEXT, CLOSE = 0x1, 0x8


def frame(data: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """As a server sends it: unmasked."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65_536:
        return head + b"\x7e" + struct.pack("!H", len(data)) + data
    return head + b"\x7f" + struct.pack("!Q", len(data)) + data


def read_frame(stream: socket.SocketIO) -> tuple[int, bytes]:
    """A client's frame: masked, and short."""
    first, second = _exactly(stream, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", _exactly(stream, 2))
    if not second & 0x80 or length == 127:
        raise ValueError("expected a short, masked frame")
    mask, data = _exactly(stream, 4), _exactly(stream, length)
    return first & 0x0F, bytes(b ^ mask[n % 4] for n, b in enumerate(data))


def _exactly(stream: socket.SocketIO, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = stream.read(size - len(found))
        if not more:
            raise ValueError("the connection ended within a frame")
        found += more
    return found


def until_readable(connection: socket.socket) -> None:
    if not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
        select.select([connection], [], [])
