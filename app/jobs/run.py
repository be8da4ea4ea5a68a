"""What runs beside the requests: one table of jobs, each by one instance at a time."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from app.domain.deadline import Deadline
from app.errors import ServiceError, StoreUnavailable
from app.jobs import audit as audit_job
from app.jobs import daily as daily_jobs
from app.jobs import master as master_job
from app.jobs import preflight as preflight_job
from app.jobs.job import Job
from app.service.audit_check import VERIFY_JOB
from app.service.reconcile import Pass
from app.web.ports import Ports

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)

FIRST_PASS_EVERY_S = 1.0
RELEASE_S = 0.5
"""For the leases at the end of a process: one that is not given back ends by itself soon after."""
KEEP_EXPIRED_KEYS = timedelta(days=2)
"""Longer than any key can still be asked for: an explicit one belongs to its IST date."""
PURGE_AT_ONCE = 5000
LEASE = timedelta(seconds=15)
"""While a job runs it is renewed; when its process dies, another may run the job after this."""
RENEW_S = LEASE.total_seconds() / 3
WAIT_S = 5.0
"""How long a person's call waits for a run that is under way elsewhere."""
NEVER = timedelta(days=36_500)
MOST_TICK_S = 10.0
NOTICES_S = 2.0
CLOCK_LOOK_S = 5.0
"""A clock that is set back by less than this delays a job by no more than this."""


def reconcile(ports: Ports, lease: tuple[str, str] | None) -> str:
    """Settle doubts and follow working orders by the broker's book: one pass."""
    return told(ports.reconcile(lease))


def told(done: Pass) -> str:
    """One line for a person."""
    moved = ", ".join(f"{o.id} {o.status}" for o in done.changed)
    asked = "" if done.asked_broker else "; nothing was open, so the broker was not asked"
    return f"{len(done.changed)} orders changed{': ' + moved if moved else ''}{asked}"


def purge(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Keys that nobody can ask for any more, and old notices."""
    gone = 0
    while True:
        with ports.store.write() as tx:
            some = tx.purge_keys(ports.scope, tx.now() - KEEP_EXPIRED_KEYS, PURGE_AT_ONCE)
        gone += some
        if some < PURGE_AT_ONCE:
            break
    old = 0 if ports.beside is None else ports.beside.purge()
    return f"{gone} expired keys and {old} old notices deleted"


JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job("reconcile", lambda p: p.settings.reconcile_interval_seconds, reconcile),
        Job("purge", lambda _: 3600.0, purge),
        Job("seal", lambda p: p.settings.audit_seal_seconds, audit_job.run),
        Job(VERIFY_JOB, lambda _: 3600.0, audit_job.verify, at=time(16, 0)),
        Job(
            "refresh-master",
            lambda _: 60.0,
            master_job.run,
            master_job.due,
            is_leased=False,
            words=master_job.WORDS,
        ),
        Job("preflight", lambda _: 60.0, preflight_job.run, at=time(8, 50), until=time(9, 15)),
        Job("notify", lambda _: 2.0, daily_jobs.send),
        Job("alert-watch", lambda _: 15.0, daily_jobs.alert_watch),
        Job("token-note", lambda _: 60.0, daily_jobs.token_note, at=time(8, 30), until=time(8, 45)),
        Job("token-page", lambda _: 60.0, daily_jobs.token_page, at=time(8, 45), until=time(15, 30)),
        Job("overnight", lambda _: 60.0, daily_jobs.overnight, at=time(9, 15), until=time(15, 30)),
        Job("summary", lambda _: 60.0, daily_jobs.day_summary, at=time(15, 45)),
    )
}


def run_job(ports: Ports, name: str, is_timer: bool = False) -> str:
    """Once, now. A run that another instance is in is waited for first.

    A day's job takes the day's slot: no timer runs it again, neither this service's own nor Cloud Scheduler (`is_timer`),
    which may say one thing twice. A person may. Raises KeyError and ServiceError.
    """
    job = JOBS[name]
    slot = job.slot_at(ports, ports.clock.now()) if job.at is not None else None
    owner = secrets.token_hex(8)
    lock = lease_of(ports, job)
    if not ports.store.take_lock(lock, owner, LEASE, Deadline(ports.clock.monotonic() + WAIT_S)):
        return f"another {'instance' if job.is_leased else 'process'} is running it right now"
    with kept(ports, lock, owner):
        # One that failed is run again as soon as Cloud Scheduler says so: it has waited itself.
        said = recorded(ports, job, owner, slot, None, timedelta(0) if is_timer else None)
    return "it has been run today" if said is None else said


def lease_of(ports: Ports, job: Job) -> str:
    """Of the cluster's one run, or of the one that each host has, however many workers it has."""
    host = f":{host_of(job)}" if host_of(job) else ""
    return f"job:{job.name}:{ports.scope.mode.value}:{ports.scope.account}{host}"


def host_of(job: Job) -> str:
    return "" if job.is_leased else socket.gethostname()


def recorded(
    ports: Ports,
    job: Job,
    owner: str,
    slot_at: datetime | None,
    lease: tuple[str, str] | None,
    again_after: timedelta | None = None,
) -> str | None:
    """One run, and what it came to, kept in the database. `again_after` as in JobRuns.begin. None: the slot has been run.

    Raises what the job raises.
    """
    runs = None if ports.beside is None else ports.beside.job_runs
    if runs is not None and not runs.begin(job.name, host_of(job), owner, slot_at, again_after):
        return None
    try:
        with ports.watcher.job(job.name):
            said = _whole_run(ports, job, lease)
    except Exception as error:
        # Whatever it was is the job's last result; its caller decides what to do with the error itself.
        if runs is not None:
            with suppress(StoreUnavailable):
                runs.end(job.name, host_of(job), owner, f"{type(error).__name__}: {error}", ok=False)
        raise
    if runs is not None:
        runs.end(job.name, host_of(job), owner, said, ok=True)
    return said


def _whole_run(ports: Ports, job: Job, lease: tuple[str, str] | None) -> str:
    """A day's job says what it has to say once: its run counts when that can be lost no more."""
    said = job.run(ports, lease)
    if job.at is not None and ports.beside is not None and not ports.beside.flush(NOTICES_S):
        raise StoreUnavailable("what it had to tell could not be kept in time")
    return said


@contextmanager
def kept(ports: Ports, lock: str, owner: str) -> Iterator[None]:
    """The lease while a run lasts, however long: renewed from a thread, so that it ends soon after a process's death;
    given back at the end.
    """
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(RENEW_S):
            with suppress(StoreUnavailable):
                ports.store.take_lock(lock, owner, LEASE, Deadline(ports.clock.monotonic()))

    thread = threading.Thread(target=renew, daemon=True, name=lock)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(StoreUnavailable), ports.store.write() as tx:
            tx.free_lock(lock, owner)


class Scheduler:
    """The jobs on a timer, in this process. A lease per job sees to it that one instance at a time runs it, and that
    another takes over when that one has died.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._owner = secrets.token_hex(8)
        self._timer: BackgroundScheduler | None = None
        self._last: dict[str, datetime] = {}
        self._slots: dict[str, datetime] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        # It warns of each look that came while a run lasted; looking often is how a slot is not missed.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._timer = BackgroundScheduler(timezone="UTC")
        for job in JOBS.values():
            self._timer.add_job(
                self.tick,
                "interval",
                args=[job],
                seconds=tick_s(job, self._ports),
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
        args = (self._timer, self._ports.clock.now())
        threading.Thread(target=self._mind_the_clock, args=args, daemon=True, name="clock").start()

    def stop(self) -> None:
        """No more runs. The leases of those under way are given back: this process ends before they do, what a
        reconcile pass would still write is checked against its lease, and a run that did not end counts as none.
        """
        if self._timer is None:
            return
        self._stopped.set()
        self._timer.shutdown(wait=False)
        ports = self._ports
        within = Deadline(ports.clock.monotonic() + RELEASE_S)
        with suppress(StoreUnavailable), ports.store.write(within) as tx:
            for job in JOBS.values():
                tx.free_lock(lease_of(ports, job), self._owner)

    def _mind_the_clock(self, timer: BackgroundScheduler, seen: datetime) -> None:
        """APScheduler sleeps until a time of day. On a machine that started ahead and was set right by NTP all jobs would
        rest for as long as it was ahead.
        """
        while not self._stopped.wait(CLOCK_LOOK_S):
            now = self._ports.clock.now()
            if now < seen:
                log.warning("the clock was set back by %s: the jobs are looked at now", seen - now)
                for job in timer.get_jobs():
                    with suppress(LookupError):  # the first pass takes itself off
                        job.modify(next_run_time=now)
            seen = now

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
        log.info("this worker takes entries: a pass since its start has succeeded")
        if self._timer is not None:
            self._timer.remove_job("first pass")

    def tick(self, job: Job) -> None:
        """One run, if a new slot has begun that no other instance has run, and this one gets the lease."""
        ports = self._ports
        now = ports.clock.now()
        slot = job.slot_at(ports, now)
        if slot is None or (job.is_leased and self._slots.get(job.name) == slot):
            return
        last = self._last.get(job.name)
        if last is not None and last > now:
            last = None  # by a clock that was ahead: it says nothing of how long ago that was
        if not job.due(ports, last):
            return
        try:
            said = self._run(job, slot, now)
            log.debug("job %s: %s", job.name, said)
        except StoreUnavailable as error:
            log.warning("job %s: the database is not there: %s", job.name, error.code)
        except ServiceError as error:
            log.warning("job %s: %s: %s", job.name, error.code, error.detail)

    def _run(self, job: Job, slot: datetime, now: datetime) -> str | None:
        ports, lock = self._ports, lease_of(self._ports, job)
        if not job.is_leased:
            self._last[job.name] = (
                now  # also where another worker of this host is at it: what it fetches is ours too
            )
        if not ports.store.take_lock(lock, self._owner, LEASE, Deadline(ports.clock.monotonic())):
            return None  # somebody is running it; when that one dies, this slot is still to be had
        with kept(ports, lock, self._owner):
            self._last[job.name] = now
            slot_at, lease = (slot, (lock, self._owner)) if job.is_leased else (None, None)
            again = timedelta(seconds=job.every_s(ports)) if job.at is not None else NEVER
            said = recorded(ports, job, self._owner, slot_at, lease, again)
        # Not when it raised or was refused: a slot whose runner failed may be this instance's to try again.
        if said is not None or job.at is None:
            self._slots[job.name] = slot
        return said


def tick_s(job: Job, ports: Ports) -> float:
    """Several looks in each slot: one look might just miss it, and looking twice at the same one costs nothing."""
    every = job.every_s(ports)
    return every if not job.is_leased else max(0.2, min(every / 5, MOST_TICK_S))
