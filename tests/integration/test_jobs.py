"""Jobs on a real database: once per slot over several instances, and taken over when their runner dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.alert import IST
from app.errors import StoreUnavailable
from app.jobs.job import Job
from app.jobs.run import JOBS, LEASE, Scheduler, kept, lease_of, run_job
from app.service.beside import Beside
from app.service.job_runs import JobRun
from app.settings import Settings
from app.store.engine import Database
from app.store.sql import SqlStore
from app.store.sql_heartbeats import SqlHeartbeats
from app.store.sql_job_runs import CLOCKS_APART, SqlJobRuns
from app.store.sql_outbox import SqlOutbox
from app.store.tables_notices import notices
from app.telemetry.notify import OutboxNotifier
from app.web.ports import Ports
from tests.fakes import FakeNotifier
from tests.integration.store_rows import SCOPE, Clock

SLOTS = 50


def at(local: str) -> datetime:
    return datetime.fromisoformat(local).replace(tzinfo=IST).astimezone(UTC)


class Instance:
    """A scheduler of its own on a connection of its own, its clock shared with the others."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.database = Database(url, clock)
        runs = SqlJobRuns(self.database, SCOPE)
        beside = Beside(SqlHeartbeats(self.database, SCOPE), runs, lambda: "", lambda: 0, lambda _: True)
        nothing: Any = None
        self.ports = Ports(
            settings=Settings.model_validate({}),
            clock=clock,
            store=SqlStore(self.database, clock, pause=clock.pass_),
            broker=nothing,
            contracts=nothing,
            scope=SCOPE,
            tokens=nothing,
            notifier=FakeNotifier(),
            reconcile=nothing,
            desk=nothing,
            beside=beside,
        )
        self.scheduler = Scheduler(self.ports)

    def last(self, name: str) -> JobRun:
        assert self.ports.beside is not None
        (run,) = (r for r in self.ports.beside.job_runs.last() if r.name == name)
        return run


@pytest.fixture
def instances(database_url: str, clock: Clock) -> Any:
    made = [Instance(database_url, clock) for _ in range(3)]
    yield made
    for one in made:
        one.database.close()


def counted(ran: list[datetime], clock: Clock, every: float = 10.0, **changes: Any) -> Job:
    def run(_: Ports, __: object) -> str:
        ran.append(clock.now())
        return f"run {len(ran)}"

    return replace(Job("counted", lambda _: every, run), **changes)


def test_three_instances_run_each_slot_once(instances: list[Instance], clock: Clock) -> None:
    ran: list[datetime] = []
    job = counted(ran, clock)
    for _ in range(SLOTS):
        for step in range(5):
            for one in (*instances[step % 3 :], *instances[: step % 3]):
                one.scheduler.tick(job)
            clock.pass_(2)
    assert len(ran) == SLOTS
    assert len({int(moment.timestamp()) // 10 for moment in ran}) == SLOTS
    last = instances[2].last("counted")
    assert (last.ok, last.result, last.last_success_at) == (True, f"run {SLOTS}", ran[-1])


def test_instances_that_tick_at_the_same_moment_run_it_once(instances: list[Instance], clock: Clock) -> None:
    ran: list[datetime] = []
    job = counted(ran, clock)
    for _ in range(10):
        together = threading.Barrier(3)

        def tick(one: Instance, wait: Callable[[], object] = together.wait) -> None:
            wait()
            one.scheduler.tick(job)

        threads = [threading.Thread(target=tick, args=(one,)) for one in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.pass_(10)
    assert len(ran) == 10


def test_a_run_is_never_begun_while_another_lasts_and_a_dead_runners_slot_is_taken_over(
    instances: list[Instance], clock: Clock
) -> None:
    ran: list[datetime] = []
    dead, other, third = instances
    job = counted(ran, clock, every=60.0)
    lock = lease_of(dead.ports, job)
    assert dead.ports.beside is not None
    # What a process leaves that is killed in the middle of a run: its lease, and a run without an end.
    assert dead.ports.store.take_lock(lock, "dead", LEASE, _at_once())
    slot = job.slot_at(dead.ports, clock.now())
    assert dead.ports.beside.job_runs.begin("counted", "", "dead", slot, LEASE)
    for _ in range(7):
        other.scheduler.tick(job)
        third.scheduler.tick(job)
        clock.pass_(2)
    assert ran == []
    clock.pass_(2)
    other.scheduler.tick(job)
    third.scheduler.tick(job)
    assert len(ran) == 1
    assert job.slot_at(dead.ports, ran[0]) == slot
    dead.ports.beside.job_runs.end("counted", "", "dead", "woke up late", ok=True)
    assert other.last("counted").result == "run 1"


def test_a_long_run_keeps_its_lease(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = instances[:2]
    renewed = threading.Event()
    monkeypatch.setattr("app.jobs.run.RENEW_S", 0.01)
    lock = lease_of(one.ports, JOBS["purge"])
    assert one.ports.store.take_lock(lock, "one", LEASE, _at_once())
    take, clock_at = one.ports.store.take_lock, clock.now()

    def seen(*given: Any) -> bool:
        taken = take(*given)
        if clock.now() > clock_at:
            renewed.set()
        return taken

    monkeypatch.setattr(one.ports.store, "take_lock", seen)
    with kept(one.ports, lock, "one"):
        clock.pass_(LEASE.total_seconds() - 1)
        assert renewed.wait(10)
        clock.pass_(2)
        assert not other.ports.store.take_lock(lock, "other", LEASE, _at_once())
    assert other.ports.store.take_lock(lock, "other", LEASE, _at_once())


def test_a_daily_job_runs_once_on_trading_days_and_again_only_after_it_failed(
    instances: list[Instance], clock: Clock
) -> None:
    ran: list[datetime] = []
    broken = True

    def run(_: Ports, __: object) -> str:
        ran.append(clock.now())
        if broken:
            raise StoreUnavailable("not now")
        return "done"

    job = replace(counted([], clock, every=60.0), run=run, at=time(9, 15), until=time(9, 30))
    clock.at = at("2026-11-23 09:14")  # a Monday

    def minutes(count: int) -> int:
        before = len(ran)
        for _ in range(count * 4):
            for one in instances:
                one.scheduler.tick(job)
            clock.pass_(15)
        return len(ran) - before

    assert minutes(1) == 0
    assert 2 <= minutes(3) <= 3  # once a minute, by whichever
    failed = instances[0].last("counted")
    assert (failed.ok, failed.result) == (False, "StoreUnavailable: not now")
    broken = False
    assert minutes(20) == 1
    assert instances[0].last("counted").ok
    clock.at = at("2026-11-24 09:30")
    assert minutes(1) == 0  # its time is over: a page about the opening helps nobody in the afternoon
    clock.at = at("2026-11-28 09:15")  # a Saturday
    assert minutes(1) == 0
    clock.at = at("2026-11-30 09:15")
    assert minutes(1) == 1


AHEAD = timedelta(hours=5, minutes=30)
"""A machine that took its hardware's local time for UTC, until NTP set it right."""


def test_a_clock_that_was_ahead_stops_no_job(instances: list[Instance], clock: Clock) -> None:
    ran: list[datetime] = []
    job = counted(ran, clock)
    right = clock.now()
    clock.at = right + AHEAD
    instances[0].scheduler.tick(job)
    clock.at = right
    for _ in range(3):
        for one in instances:  # the one that was ahead, too
            one.scheduler.tick(job)
        clock.pass_(10)
    assert ran == [right + AHEAD, *(right + timedelta(seconds=10 * n) for n in range(3))]


def test_a_slot_of_a_clock_that_is_ahead_within_the_margin_is_not_run_again(
    instances: list[Instance], clock: Clock
) -> None:
    runs = SqlJobRuns(instances[0].database, SCOPE)
    slots = [clock.now(), clock.now() + CLOCKS_APART, clock.now() + CLOCKS_APART + timedelta(seconds=1)]
    taken = []
    for name, later in (("within", slots[1]), ("beyond", slots[2])):
        assert runs.begin(name, "", "ahead", later, LEASE)
        runs.end(name, "", "ahead", "", ok=True)
        assert not runs.begin(name, "", "as far ahead", later, LEASE)
        taken.append(runs.begin(name, "", "right", slots[0], LEASE))
    assert taken == [False, True]


def test_the_timers_go_on_when_the_clock_is_set_back(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APScheduler goes by the machine's clock, which no test sets: a run an hour away stands for a step back by an hour."""
    ticked = threading.Event()

    class Ticking(Scheduler):
        def first_pass(self) -> None:
            """There is no broker to pass over."""

        def tick(self, job: Job) -> None:
            assert job.name == "counted"
            ticked.set()

    job = counted([], clock, every=3600.0, is_leased=False)
    monkeypatch.setattr("app.jobs.run.JOBS", {"counted": job})
    monkeypatch.setattr("app.jobs.run.CLOCK_LOOK_S", 0.01)
    clock.at = datetime.now(UTC) + AHEAD
    scheduler = Ticking(instances[0].ports)
    scheduler.start()
    try:
        clock.at = datetime.now(UTC)
        assert ticked.wait(10)
    finally:
        scheduler.stop()


def test_a_try_by_a_clock_that_was_ahead_delays_no_other(instances: list[Instance], clock: Clock) -> None:
    ran: list[datetime] = []

    def due(_: Ports, last: datetime | None) -> bool:
        return last is None or clock.now() - last >= timedelta(minutes=5)

    job = counted(ran, clock, is_leased=False, due=due)
    right = clock.now()
    for at_, expected in ((right + AHEAD, 1), (right, 2), (right + timedelta(minutes=4), 2)):
        clock.at = at_
        instances[0].scheduler.tick(job)
        assert len(ran) == expected


def mornings_look(ran: list[datetime], clock: Clock) -> Job:
    """The table's own row of the preflight, with another look."""
    job = JOBS["preflight"]
    return replace(
        counted(ran, clock), name=job.name, every_s=job.every_s, at=job.at, until=job.until, due=job.due
    )


def test_the_mornings_look_is_made_again_when_its_runner_died(
    instances: list[Instance], clock: Clock
) -> None:
    ran: list[datetime] = []
    job = mornings_look(ran, clock)
    dead, other, third = instances
    clock.at = at("2026-11-23 08:50")
    slot = job.slot_at(dead.ports, clock.now())
    assert slot is not None
    assert dead.ports.beside is not None
    assert dead.ports.beside.job_runs.begin("preflight", "", "dead", slot, timedelta(seconds=60))
    for _ in range(25):
        other.scheduler.tick(job)
        third.scheduler.tick(job)
        clock.pass_(60)
    assert ran == [at("2026-11-23 08:50")]
    assert other.last("preflight").ok


def test_the_mornings_look_is_tried_again_after_a_minute_when_it_failed(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[datetime] = []
    one = instances[0]
    assert one.ports.beside is not None
    looked = mornings_look(ran, clock)

    def fails_at_first(ports: Ports, lease: tuple[str, str] | None) -> str:
        said = looked.run(ports, lease)
        if len(ran) == 1:
            raise OSError("the broker's answer was no JSON")
        return said

    job = replace(looked, run=fails_at_first)
    clock.at = at("2026-11-23 08:50")

    def away(*_: Any) -> bool:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as patched:
        patched.setattr(one.ports.beside.job_runs, "begin", away)
        one.scheduler.tick(job)
    assert ran == []
    with pytest.raises(OSError, match="no JSON"):
        one.scheduler.tick(job)
    assert one.last("preflight").ok is False
    for _ in range(12):
        clock.pass_(10)
        one.scheduler.tick(job)
    assert [(moment - ran[0]).total_seconds() for moment in ran] == [0, 60]
    assert one.last("preflight").ok


def test_a_persons_call_waits_for_the_run_elsewhere_and_says_so(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[datetime] = []
    job = counted(ran, clock)
    monkeypatch.setitem(JOBS, "counted", job)
    one, other = instances[:2]
    lock = lease_of(one.ports, job)
    assert one.ports.store.take_lock(lock, "busy", LEASE, _at_once())
    before = clock.now()
    assert run_job(other.ports, "counted") == "another instance is running it right now"
    assert ran == []
    assert clock.now() > before
    clock.pass_(LEASE.total_seconds())
    assert run_job(other.ports, "counted") == "run 1"
    assert one.last("counted").result == "run 1"
    assert run_job(other.ports, "counted") == "run 2"  # the lease was given back


def test_a_days_job_is_run_once_for_all_timers_and_as_often_as_a_person_says(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[datetime] = []
    job = replace(counted(ran, clock, every=60.0), at=time(15, 45))
    monkeypatch.setitem(JOBS, "counted", job)
    own, other = instances[:2]

    def scheduler_says() -> str:
        return run_job(other.ports, "counted", is_timer=True)

    clock.at = at("2026-11-23 15:40")
    assert scheduler_says() == "run 1"  # outside of the day's slot, which it does not take
    assert scheduler_says() == "run 2"
    clock.at = at("2026-11-23 15:46")
    assert scheduler_says() == "run 3"
    assert scheduler_says() == "it has been run today"
    own.scheduler.tick(job)
    assert len(ran) == 3
    assert run_job(own.ports, "counted") == "run 4"
    clock.at = at("2026-11-25 15:46")
    assert run_job(own.ports, "counted") == "run 5"
    for one in instances:
        one.scheduler.tick(job)
    assert scheduler_says() == "it has been run today"
    assert len(ran) == 5


def test_cloud_schedulers_repeat_runs_a_days_job_that_failed(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that all is well would end its repeats, and without CPU between requests no timer follows."""
    ran: list[datetime] = []

    def fail_once(_: Ports, __: object) -> str:
        ran.append(clock.now())
        if len(ran) == 1:
            raise StoreUnavailable("not now")
        return "done"

    job = replace(counted([], clock, every=3600.0), run=fail_once, at=time(15, 45))
    monkeypatch.setitem(JOBS, "counted", job)
    clock.at = at("2026-11-23 15:46")
    ports = instances[0].ports
    with pytest.raises(StoreUnavailable):
        run_job(ports, "counted", is_timer=True)
    clock.pass_(5)
    assert run_job(ports, "counted", is_timer=True) == "done"
    assert run_job(ports, "counted", is_timer=True) == "it has been run today"


def test_a_days_job_whose_page_could_not_be_kept_is_run_again(
    instances: list[Instance], clock: Clock
) -> None:
    """Its process could be killed with the page in memory only, and nobody would tell it again."""
    ran: list[datetime] = []
    job = replace(counted(ran, clock, every=60.0), at=time(15, 45))
    clock.at = at("2026-11-23 15:45")
    one, other = instances[:2]
    whole = one.ports.beside
    assert whole is not None
    one.ports = replace(one.ports, beside=replace(whole, flush=lambda _: False))
    one.scheduler = Scheduler(one.ports)
    one.scheduler.tick(job)
    assert one.last("counted").ok is False
    for _ in range(10):
        clock.pass_(15)
        other.scheduler.tick(job)
    assert len(ran) == 2
    assert one.last("counted").ok


class Killed(BaseException):
    """The process ends here."""


def test_a_summary_whose_runner_died_before_its_end_was_kept_is_told_once(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again it says the same, and nobody is told twice; what a person's run says differently is told."""
    words = iter(["1 orders", "1 orders", "2 orders", "1 orders"])

    def tell(ports: Ports, _: object) -> str:
        ports.notifier.notify("daily_summary", said := next(words))
        return said

    def kills(*_: Any, **__: Any) -> None:
        raise Killed

    job = replace(JOBS["summary"], run=tell)
    monkeypatch.setitem(JOBS, "summary", job)
    for one in instances:
        notifier = OutboxNotifier(SqlOutbox(one.database, SCOPE), clock)
        assert one.ports.beside is not None
        beside = replace(one.ports.beside, flush=notifier.flush)
        one.ports = replace(one.ports, notifier=notifier, beside=beside)
        one.scheduler = Scheduler(one.ports)
    dead, other = instances[:2]

    def kept() -> list[str]:
        with other.database.read() as connection:
            return list(connection.execute(select(notices.c.message).order_by(notices.c.id)).scalars())

    clock.at = at("2026-11-23 15:45")
    assert dead.ports.beside is not None
    with monkeypatch.context() as end:
        end.setattr(dead.ports.beside.job_runs, "end", kills)
        with pytest.raises(Killed):
            dead.scheduler.tick(job)
    for _ in range(3):
        clock.pass_(60)
        other.scheduler.tick(job)
    assert other.last("summary").ok
    assert kept() == ["1 orders"]
    assert run_job(other.ports, "summary") == "2 orders"
    assert kept() == ["1 orders", "2 orders"]
    clock.at = at("2026-11-25 15:45")
    other.scheduler.tick(job)
    assert kept() == ["1 orders", "2 orders", "1 orders"]


def test_a_hosts_own_job_keeps_a_run_per_host(
    instances: list[Instance], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[datetime] = []
    job = counted(ran, clock, is_leased=False)
    for host in ("alpha", "beta"):
        monkeypatch.setattr("app.jobs.run.socket.gethostname", lambda name=host: name)
        instances[0].scheduler.tick(job)
    assert instances[1].ports.beside is not None
    assert [r.host for r in instances[1].ports.beside.job_runs.last()] == ["alpha", "beta"]
    assert len(ran) == 2


def test_two_workers_of_a_host_run_its_own_job_once_and_none_counts_as_failed(
    instances: list[Instance], clock: Clock
) -> None:
    """The second would find the refresh under way, and its failure would stand for the success of the first."""
    ran: list[datetime] = []
    one, other = instances[:2]

    def run(_: Ports, __: object) -> str:
        ran.append(clock.now())
        if len(ran) == 1:
            other.scheduler.tick(job)
        return "built"

    job = Job("own", lambda _: 60.0, run, is_leased=False)
    one.scheduler.tick(job)
    assert len(ran) == 1
    assert (one.last("own").ok, one.last("own").result) == (True, "built")
    one.scheduler.tick(job)
    assert len(ran) == 2, "the host's lease was given back"


def test_the_table_of_jobs() -> None:
    at_time = {name: f"{job.at:%H:%M}" for name, job in JOBS.items() if job.at}
    expected = {
        "token-note": "08:30",
        "token-page": "08:45",
        "preflight": "08:50",
        "overnight": "09:15",
        "summary": "15:45",
    }
    assert expected.items() <= at_time.items()
    anywhere: Any = None  # these say it without asking anything
    assert JOBS["preflight"].when(anywhere) == "08:50 IST on trading days"
    assert JOBS["refresh-master"].when(anywhere) == "from 08:00 IST until fresh"


def _at_once() -> Any:
    from app.domain.deadline import Deadline

    return Deadline(0.0)
