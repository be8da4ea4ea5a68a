"""The end of a listening socket that loses no client: first nobody new gets in, then those within are taken.

The kernel accepts connections until the socket is closed, whatever the service does, and closing resets those that nobody
has taken yet: their clients have sent their requests already. Taking them all and closing is two steps, with as long
between them as the other threads make this one wait. So the socket is given a filter first that drops the packets that open
a connection. Such a client's system asks again a second later, and is refused, or meets the next process.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

SO_ATTACH_FILTER = 26
"""Linux, asm-generic/socket.h; Python does not name it."""
FLAGS_AT = 13
"""Of a TCP header, which is what a filter of a TCP socket sees (RFC 9293, 3.1)."""
SYN = 0x02
LOAD_BYTE, JUMP_IF_SET, RETURN = 0x30, 0x45, 0x06
NO_OPENINGS = (
    (LOAD_BYTE, 0, 0, FLAGS_AT),
    (JUMP_IF_SET, 1, 0, SYN),
    (RETURN, 0, 0, 0xFFFFFFFF),
    (RETURN, 0, 0, 0),
)
"""Classic BPF: (code, jump if true, jump if false, operand)."""


def admit_nobody(listener: socket.socket) -> None:
    """No connection begins on `listener` any more, in whatever process has it open; those that have begun go on.

    Where the system has no such filter nothing happens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in NO_OPENINGS))
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("@HP", len(NO_OPENINGS), ctypes.addressof(program)),
        )


class Listener(Protocol):
    """What gunicorn keeps of a listening socket."""

    sock: socket.socket
    close: Callable[[], None]


class Arbiter(Protocol):
    """gunicorn's parent process, as far as it is used here. `reexec_pid`, `master_pid`: 0 outside of an upgrade;
    `systemd`: it was given its sockets, and whoever gave them keeps them for the next one.
    """

    LISTENERS: Sequence[Listener]
    pid: int
    reexec_pid: int
    master_pid: int
    systemd: bool


def admit_nobody_from_the_end(server: Arbiter) -> None:
    """Have gunicorn's arbiter do so when it stops the service: it closes its listeners, then it tells the workers."""
    for listener in server.LISTENERS:
        listener.close = partial(_close, server, listener, listener.close)


def _close(server: Arbiter, listener: Listener, close: Callable[[], None]) -> None:
    # A worker, which has inherited this, and either side of an upgrade in place leave a listener that others go on with.
    is_last = server.pid == os.getpid() and server.reexec_pid == server.master_pid == 0
    if is_last and not server.systemd:
        admit_nobody(listener.sock)
    close()
