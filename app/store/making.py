"""New connections, each by the deadline of whoever needs one.

The driver's own time-out is in whole seconds from two on, for each address that the name has, and holds for no name
server: `localhost` alone may cost it four seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class NotMade(Exception):
    """Not in time, or the process gets no thread for it."""


class Attempt:
    """One connection, made in a thread of its own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.began = time.monotonic()
        self._made: Future[tuple[Any, float]] = Future()
        try:
            threading.Thread(target=self._run, args=[make], name="database connect", daemon=True).start()
        except RuntimeError as error:
            raise NotMade(str(error)) from None

    @property
    def has_failed(self) -> bool:
        return self._made.done() and self._made.exception() is not None

    def result(self, until: float) -> tuple[Any, float]:
        """The connection and when it was made, or what went wrong; NotMade at `until`, on the monotonic clock."""
        try:
            return self._made.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            if self._made.done():
                return self._made.result()
            raise NotMade("the database made no connection in time") from None

    def drop(self) -> None:
        """Nobody wants it any more: it is closed as soon as it is there."""
        self._made.add_done_callback(_close)

    def _run(self, make: Callable[[], Any]) -> None:
        try:
            self._made.set_result((make(), time.monotonic()))
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            self._made.set_exception(error)


def _close(made: Future[tuple[Any, float]]) -> None:
    if made.exception() is None:
        made.result()[0].close()


class Attempts:
    """One that outlived whoever began it is the next one's: thrown away, a server that is further than what most of
    them have would never be reached.
    """

    def __init__(self, good_for_s: float) -> None:
        """`good_for_s`: one that takes longer hangs, and is nobody's."""
        self._good_for_s = good_for_s
        self._kept: deque[Attempt] = deque()

    def next(self, make: Callable[[], Any]) -> Attempt:
        """One that is under way or done already, or a new one."""
        while (attempt := self._pop()) is not None:
            if not attempt.has_failed and time.monotonic() - attempt.began < self._good_for_s:
                return attempt
            attempt.drop()
        return Attempt(make)

    def keep(self, attempt: Attempt) -> None:
        self._kept.append(attempt)

    def drop(self) -> None:
        while (attempt := self._pop()) is not None:
            attempt.drop()

    def _pop(self) -> Attempt | None:
        try:
            return self._kept.popleft()
        except IndexError:
            return None
