"""The Notifier of a service: the log at once, and the outbox as soon as the database takes it."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time

from app.errors import ServiceError
from app.service.notices import TRADING_STATE, Notice, Outbox, told
from app.service.ports import Clock
from app.telemetry.logging import LogNotifier
from app.telemetry.secrets import SECRETS

log = logging.getLogger(__name__)

RAISES_AFTERWARDS = frozenset({"key_clash"})
"""Told inside a transaction that is then undone: the notice must not go with it."""
MOST_WAITING, FOR_PAGES = 1000, 500
"""Notices while the database is away, and how many of these places notes leave to pages."""
RETRY_S = 1.0
AT_EXIT_S = 2.0


class OutboxNotifier:
    """Never raises and never makes its caller wait: inside a writing transaction the notice is one more row of it, so
    that both are kept or neither; outside of one a thread of its own writes it.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox, self._clock = outbox, clock
        self._log = LogNotifier()
        self._waiting: queue.Queue[Notice] = queue.Queue()
        self._pid = 0
        self._is_at_exit = False
        self._lock = threading.Lock()

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        message = SECRETS.clean(message)
        self._log.notify(code, message, page=page)
        if code == TRADING_STATE:
            return  # its history is what tells it: whoever changed it, and also after a crash
        notice = told(code, message, self._clock.now(), page=page)
        if code not in RAISES_AFTERWARDS and self._outbox.join(notice):
            return
        if not self._has_room(page=page):  # the database has been away for long, and the log has it
            log.warning("the outbox is full: %s stands in the log only", code)
            return
        self._waiting.put(notice)
        self._started()

    def _has_room(self, *, page: bool) -> bool:
        return self._waiting.qsize() < (MOST_WAITING if page else MOST_WAITING - FOR_PAGES)

    def flush(self, within_s: float) -> bool:
        """Wait until all is written. False: the time was too short."""
        if self._waiting.unfinished_tasks:
            self._started()
        ends = time.monotonic() + within_s
        while self._waiting.unfinished_tasks and time.monotonic() < ends:
            time.sleep(0.01)
        return not self._waiting.unfinished_tasks

    def _started(self) -> None:
        """At the first notice of this process: a thread does not outlive a fork."""
        with self._lock:
            if self._pid == os.getpid():
                return
            if not self._is_at_exit:
                atexit.register(self.flush, AT_EXIT_S)  # of a command; a worker's end asks for it itself
                self._is_at_exit = True
            try:
                threading.Thread(target=self._write, daemon=True, name="outbox").start()
            except (
                RuntimeError
            ) as error:  # no thread to be had: the next notice, or the process's end, tries again
                log.warning("notices wait to be written: %s", error)
                return
            self._pid = os.getpid()

    def _write(self) -> None:
        while True:
            notice = self._waiting.get()
            try:
                while not self._written(notice):
                    time.sleep(RETRY_S)
            finally:
                self._waiting.task_done()

    def _written(self, notice: Notice) -> bool:
        try:
            self._outbox.add(notice)
        except ServiceError:
            return False
        except Exception:  # this thread is the only one: the next notice must still be written
            log.exception("a notice could not be kept: %s", notice.code)
        return True
