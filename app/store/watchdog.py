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
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Watch:
    """Over one wait: until when, and the socket by a number of our own. Its owner may close it before: another's may
    have its number then.
    """

    ends: float
    descriptor: int
    is_over: bool = False
    """It lasted too long, and the socket was shut down."""


class Watchdog:
    """One thread per process, started at the first use after a fork. It wakes only when a time is over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._wakes_at = float("inf")
        self._process = 0

    @contextmanager
    def over(self, descriptor: int, within_s: float) -> Iterator[Watch]:
        """Shut the socket down if this block lasts longer."""
        watch = self.begin(descriptor, within_s)
        try:
            yield watch
        finally:
            self.end(watch)

    def begin(self, descriptor: int, within_s: float) -> Watch:
        """Shut the socket down unless `end` comes in time. One that nobody ends is over with its time, and gone. Raises
        OSError and RuntimeError where the process gets no descriptor or no thread.
        """
        self._start()
        watch = Watch(time.monotonic() + within_s, os.dup(descriptor))
        with self._changed:
            self._watches.add(watch)
            if watch.ends < self._wakes_at:
                self._changed.notify()
        return watch

    def end(self, watch: Watch) -> None:
        with self._changed:
            if not watch.is_over:
                self._watches.discard(watch)
                os.close(watch.descriptor)

    def _start(self) -> None:
        if self._process == os.getpid():
            return
        with self._changed:
            if self._process == os.getpid():
                return
            self._watches.clear()  # a parent's
            threading.Thread(target=self._watch, name="database watchdog", daemon=True).start()
            self._process = os.getpid()  # not before: without the thread nothing is watched

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for watch in [w for w in self._watches if w.ends <= now]:
                    self._watches.remove(watch)
                    watch.is_over = True
                    _shut_down(watch.descriptor)
                self._wakes_at = min((watch.ends for watch in self._watches), default=float("inf"))
                left = self._wakes_at - now
                self._changed.wait(left if left != float("inf") else None)


def _shut_down(descriptor: int) -> None:
    """Only this number of it is closed: the owner's stays the owner's."""
    with suppress(OSError), socket.socket(fileno=descriptor) as own:
        own.shutdown(socket.SHUT_RDWR)
