"""Sees to it that an open breaker is closed though nobody asks this process for anything.

Only a read of a process's own, or the word of the others in Redis, closes its breakers, and the passes of the jobs may
all be another worker's: this one's breaker would be shown, and page, for as long as no alert comes to it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.errors import BrokerReadFailed
from app.service.exchanger import Exchanger
from app.service.ports import Clock

log = logging.getLogger(__name__)

LOOK_S = 30.0
"""An alert's own read, or a pass's, is mostly there before."""
ANSWER_S = 2.0


class Guarded(Protocol):
    clock: Clock

    @property
    def is_closed(self) -> bool: ...

    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None
    ) -> AbstractContextManager[Exchanger]: ...


class Lookout:
    """`wake` at each change; one thread, which ends once all is closed."""

    def __init__(self, guard: Guarded, wait: Callable[[float], object] | None = None) -> None:
        self._guard = guard
        self._wait = wait or threading.Event().wait
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        if self._guard.is_closed:
            return
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="breaker lookout", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # at the next change again
                log.warning("nobody looks after the open breaker: %s", error)

    def _run(self) -> None:
        while not self._guard.is_closed:
            self._wait(LOOK_S)
            self.look()

    def look(self) -> None:
        """One guarded read: it learns what the others know, and is the probe if one is due."""
        if self._guard.is_closed:
            return
        deadline = Deadline(self._guard.clock.monotonic() + ANSWER_S)
        try:
            with self._guard.exchange(deadline) as exchanger:
                exchanger.market_open(Exchange.NSE)
        except BrokerReadFailed as error:
            log.info("the breaker stays open: %s", error.detail)
        except Exception:  # the next look is another try
            log.exception("the look after the open breaker failed")
