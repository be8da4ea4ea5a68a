"""What runs beside the requests: one table of jobs, each by one instance at a time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from app import audit_job, master_job, preflight_job
from app.domain.deadline import Deadline
from app.errors import ServiceError, StoreUnavailable
from app.service.reconcile import Pass
from app.web.ports import Ports

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)

FIRST_PASS_EVERY_S = 1.0
KEEP_EXPIRED_KEYS = timedelta(days=2)
"""Longer than any key can still be asked for: an explicit one belongs to its IST date."""
PURGE_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the table. `run` gets the ports and, where it runs on a timer, the lease that its writes check."""

    name: str
    every_s: Callable[[Ports], float]
    run: Callable[[Ports, tuple[str, str] | None], str]
    due: Callable[[Ports, datetime | None], bool] = lambda _ports, _last: True
    """Asked at each tick, with the time of this process's last run; a person's own call is always due."""
    is_leased: bool = True
    """False: every host has its own to do."""


def reconcile(ports: Ports, lease: tuple[str, str] | None) -> str:
    """One pass."""
    return told(ports.reconcile(lease))


def told(done: Pass) -> str:
    """One line for a person."""
    moved = ", ".join(f"{o.id} {o.status}" for o in done.changed)
    asked = "" if done.asked_broker else "; nothing was open, so the broker was not asked"
    return f"{len(done.changed)} orders changed{': ' + moved if moved else ''}{asked}"


def purge(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Keys that nobody can ask for any more."""
    gone = 0
    while True:
        with ports.store.write() as tx:
            some = tx.purge_keys(ports.scope, tx.now() - KEEP_EXPIRED_KEYS, PURGE_AT_ONCE)
        gone += some
        if some < PURGE_AT_ONCE:
            return f"{gone} expired keys deleted"


JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job("reconcile", lambda p: p.settings.reconcile_interval_seconds, reconcile),
        Job("purge", lambda _: 3600.0, purge),
        Job("seal", lambda p: p.settings.audit_seal_seconds, audit_job.run),
        Job("refresh-master", lambda _: 60.0, master_job.run, master_job.due, is_leased=False),
        Job("preflight", lambda _: 60.0, preflight_job.run, preflight_job.due),
    )
}


def run_job(ports: Ports, name: str) -> str:
    """Once, now, without a lease: for a person and for Cloud Scheduler. Raises KeyError and ServiceError."""
    return JOBS[name].run(ports, None)


class Scheduler:
    """The jobs on a timer, in this process. A lease per job sees to it that one instance at a time runs it, and that
    another takes over when that one has died.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._owner = secrets.token_hex(8)
        self._timer: BackgroundScheduler | None = None
        self._last: dict[str, datetime] = {}

    def start(self) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        self._timer = BackgroundScheduler(timezone="UTC")
        for job in JOBS.values():
            self._timer.add_job(
                self.tick,
                "interval",
                args=[job],
                seconds=job.every_s(self._ports),
                id=job.name,
                coalesce=True,
            )
        self._timer.add_job(
            self.first_pass,
            "interval",
            seconds=FIRST_PASS_EVERY_S,
            id="first pass",
            next_run_time=self._ports.clock.now(),
        )
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.shutdown(wait=False)

    def first_pass(self) -> None:
        """Until one has succeeded: without a lease, so that a dead process's lease delays nothing."""
        try:
            desk = self._ports.desk()
            with self._ports.store.read() as tx:
                done = desk.reconciled(tx)
            if not done:
                with self._ports.watcher.job("reconcile"):
                    log.info("first reconcile pass: %s", reconcile(self._ports, None))
        except ServiceError as error:
            log.warning("first reconcile pass: %s", error.code)
            return
        if self._timer is not None:
            self._timer.remove_job("first pass")

    def tick(self, job: Job) -> None:
        """One run, if this instance has or gets the lease."""
        ports = self._ports
        if not job.due(ports, self._last.get(job.name)):
            return
        name = f"job:{job.name}:{ports.scope.mode.value}:{ports.scope.account}"
        ttl = timedelta(seconds=max(15.0, 3 * job.every_s(ports)))
        try:
            at_once = Deadline(ports.clock.monotonic())
            if not job.is_leased or ports.store.take_lock(name, self._owner, ttl, at_once):
                self._last[job.name] = ports.clock.now()
                with ports.watcher.job(job.name):
                    said = job.run(ports, (name, self._owner) if job.is_leased else None)
                log.debug("job %s: %s", job.name, said)
        except StoreUnavailable as error:
            log.warning("job %s: the database is not there: %s", job.name, error.code)
        except ServiceError as error:
            log.warning("job %s: %s: %s", job.name, error.code, error.detail)
