"""Reconciling sooner than the timer would, where the broker's order feed says that something has happened.

One process at a time listens, by a lease, so that workers and instances do not multiply connections and readings. A hint
changes nothing: it brings forward the same reconcile pass that the timer runs, under the same lease and the same budget
of calls. Whatever becomes of the feed, the timer goes on as if there were none.
"""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from time import monotonic

from app.domain.deadline import Deadline
from app.errors import ServiceError, StoreUnavailable
from app.jobs.run import JOBS, LEASE, RENEW_S, WAIT_S, kept, lease_of, recorded
from app.service.order_feed import OrderFeed
from app.web.ports import Ports

log = logging.getLogger(__name__)

GATHER_S = 0.15
"""Received, working and filled come as three messages within milliseconds: one pass for all of them."""
GAP_S = 2.0
"""From one such pass to the next: 30 passes, 60 calls, in a minute of the 200 that Fyers allows."""
RELEASE_S = 0.1


class OrderUpdates:
    """`start` and `stop` once each, in a process that runs the jobs."""

    def __init__(
        self,
        ports: Ports,
        feed: OrderFeed,
        *,
        gather_s: float = GATHER_S,
        gap_s: float = GAP_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self._ports, self._feed = ports, feed
        self._gather_s, self._gap_s, self._renew_s = gather_s, gap_s, renew_s
        scope = ports.scope
        self._listening = f"order-feed:{scope.mode.value}:{scope.account}"
        self._owner = secrets.token_hex(8)
        self._hinted = threading.Event()
        self._stopped = threading.Event()
        self._is_mine = False
        self._next = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True, name="order-updates")

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Returns soon, whatever the broker or the database do; what is left ends with the process. The leases are given
        back for the same reason as the jobs' (run.py).
        """
        self._stopped.set()
        self._hinted.set()
        self._feed.stop()
        ports = self._ports
        within = Deadline(ports.clock.monotonic() + RELEASE_S)
        with suppress(StoreUnavailable), ports.store.write(within) as tx:
            for lock in (self._listening, lease_of(ports, JOBS["reconcile"])):
                tx.free_lock(lock, self._owner)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look_after_lease()
                self._until(monotonic() + self._renew_s)
            except Exception:
                # Whatever it was, the next round tries again: without this thread fills would only come more slowly.
                log.exception("order updates")
                self._stopped.wait(self._renew_s)

    def _look_after_lease(self) -> None:
        """With the database away it stays as it is: two that listen do no harm, and nobody can reconcile anyway."""
        ports = self._ports
        with suppress(StoreUnavailable):
            at_once = Deadline(ports.clock.monotonic())
            self._is_mine = ports.store.take_lock(self._listening, self._owner, LEASE, at_once)
        if self._stopped.is_set() or not self._is_mine:
            self._feed.stop()
            return
        self._feed.start(self._hinted.set)
        if self._stopped.is_set():  # told to while it was started
            self._feed.stop()

    def _until(self, ends: float) -> None:
        while not self._stopped.is_set() and (left := ends - monotonic()) > 0:
            if not self._hinted.wait(left):
                return
            if self._stopped.wait(max(self._gather_s, self._next - monotonic())):
                return
            self._hinted.clear()  # before the book is read: what comes from here on is another pass's
            self._pass()
            self._next = monotonic() + self._gap_s

    def _pass(self) -> None:
        ports, job = self._ports, JOBS["reconcile"]
        lock = lease_of(ports, job)
        try:
            # One that is under way may have read the book too soon: it is waited for.
            within = Deadline(ports.clock.monotonic() + WAIT_S)
            if not ports.store.take_lock(lock, self._owner, LEASE, within):
                return
            with kept(ports, lock, self._owner):
                said = recorded(ports, job, self._owner, None, (lock, self._owner))
            log.debug("order updates: %s", said)
        except ServiceError as error:
            log.warning("order updates: %s: the timer's next pass has to do it", error.code)
