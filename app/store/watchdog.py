"""Ends the wait for a database that says nothing more.

`statement_timeout` is the server's, and TCP's own time-outs end once anything in between acknowledges the bytes: a
connection pooler or a tunnel that hangs would hold each request's thread for ever. Here a connection whose time is over
is shut down under whoever waits on it, who then sees it as lost.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Watchdog:
    """One thread per process, started at the first use after a fork. It wakes only when a time is over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until: dict[object, tuple[float, int]] = {}
        self._wakes_at = float("inf")
        self._process = 0

    @contextmanager
    def over(self, descriptor: int, within_s: float) -> Iterator[None]:
        """Shut the socket down if this block lasts longer. Its owner may close it before: another's may have its number
        then, and so it is watched by a number of our own.
        """
        key, ends, own = object(), time.monotonic() + within_s, os.dup(descriptor)
        try:
            self._start()
            with self._changed:
                self._until[key] = ends, own
                if ends < self._wakes_at:
                    self._changed.notify()
            yield
        finally:
            with self._changed:
                self._until.pop(key, None)
            os.close(own)

    def _start(self) -> None:
        if self._process == os.getpid():
            return
        with self._changed:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
            self._until.clear()  # a parent's
            threading.Thread(target=self._watch, name="database watchdog", daemon=True).start()

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (ends, descriptor) in list(self._until.items()):
                    if ends <= now:
                        del self._until[key]
                        _shut_down(descriptor)
                self._wakes_at = min((ends for ends, _ in self._until.values()), default=float("inf"))
                left = self._wakes_at - now
                self._changed.wait(left if left != float("inf") else None)


def _shut_down(descriptor: int) -> None:
    """The descriptor itself stays its owner's."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
        found.shutdown(socket.SHUT_RDWR)
