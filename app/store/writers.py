"""The queue of writers in one process: all of SQLite's, the entries on Postgres."""

from __future__ import annotations

import threading
from collections import deque


class WriterQueue:
    """One writer at a time, first come first served. Waiting by polling (SQLite's busy handler) starves some
    writers for seconds; a queue does not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._busy = False

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting)

    def acquire(self, timeout_s: float) -> bool:
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(timeout_s):
            return True
        with self._lock:
            if turn.is_set():  # handed over between the time-out and the lock
                return True
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._busy = False
