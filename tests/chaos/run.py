"""One run: a victim dies at a point, a second process recovers, and the ledger is judged. All by fork."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import factory
from app.domain.contract import ist_date
from app.service.place_order import PlaceOrder
from app.store.engine import Database
from tests.chaos.fork import Child, Report
from tests.chaos.judge import Verdict, judge
from tests.chaos.naive import NaivePlaceOrder
from tests.chaos.points import TRACER, Point
from tests.chaos.scenarios import Scenario, Variant
from tests.chaos.simulator import SimProcess
from tests.chaos.world import OPENING, SetClock, World
from tests.fyers_sim import sample_masters

TRIES = 4
MASTERS = sample_masters(ist_date(OPENING))


@dataclass(frozen=True, slots=True)
class Case:
    scenario: Scenario
    variant: Variant
    database: str
    """`sqlite` or `postgres`."""
    point: Point | None
    """None: nobody dies, the passages are counted."""

    def __str__(self) -> str:
        return f"{self.scenario.name} [{self.variant}] on {self.database}, {self.point}"


@dataclass
class Result:
    case: Case
    killed: bool
    verdict: Verdict
    points: list[Point] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Bench:
    """One worker's place: a directory, and databases that are open in no process between runs."""

    directory: Path
    template: Path
    """A SQLite file at the newest revision."""
    databases: dict[str, Database]
    clock: SetClock
    runs: int = 0

    @classmethod
    def at(cls, directory: Path, template: Path, postgres: str | None) -> Bench:
        directory.mkdir()
        shutil.copytree(template.parent / "contracts-fyers", directory / "contracts-fyers")
        clock = SetClock()
        databases = {"sqlite": Database(f"sqlite:///{directory / 'orders.db'}", clock)}
        if postgres is not None:
            databases["postgres"] = Database(postgres, clock)
        return cls(directory, template, databases, clock)

    def run(self, case: Case) -> Result:
        """Raises when the harness itself fails; what the service does wrong is in the verdict."""
        found = None
        for _ in range(TRIES):
            found = found or self._run(case)
        if found is None:
            raise AssertionError(f"{case}: the first crash did not come")
        return found

    def _run(self, case: Case) -> Result | None:
        """None: the first crash of two did not come, since on a busy machine the request's time was over before."""
        self.begin(case)
        sim = SimProcess(self.ledger, MASTERS, OPENING)
        alerts = case.scenario.alerts(case.variant)
        try:
            first: list[dict[str, Any]] = []
            if case.scenario.crash is not None:
                first, status = self._done(lambda report: self._first(case, sim, report))
                if status == 0:
                    return None
                if status != signal.SIGKILL:
                    raise AssertionError(f"{case}: the first process failed: {first}")
                sim.quiet()
            said, status = self._done(lambda report: self._victim(case, sim, report))
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if not killed and status != 0:
                raise AssertionError(f"{case}: the victim failed: {said}")
            sim.quiet()
            again = list(alerts[case.scenario.skip :])
            more, status = self._done(lambda report: self.world(case, sim, report).recover(again))
            if status != 0:
                raise AssertionError(f"{case}: the recovery failed: {more}")
            ledger_lines = sim.lines()
        finally:
            sim.close()
        everything = first + said + more
        points = [Point(*p) for line in everything for p in line.get("points", ())]
        found = next(line["found"] for line in more if "found" in line)
        rows = next(line["rows"] for line in more if "rows" in line)
        answered = [line for line in everything if "answer" in line]
        known = {(row["symbol"], row["side"]) for row in found}
        repeated = {line["answer"] for line in more if "answer" in line}
        must = {
            a.name
            for a in again
            if a.name in repeated
            and (a.place[0], {1: "BUY", -1: "SELL"}[a.place[1]]) not in known
            and not case.scenario.swallowed
        }
        verdict = judge(alerts, ledger_lines, rows, answered, must)
        return Result(case, killed, verdict, points, everything)

    def warm(self, case: Case) -> None:
        """Walk through a scenario in this process, so that what it loads and compiles is there in every fork."""
        self.begin(case)
        sim = SimProcess(self.ledger, MASTERS, OPENING)
        try:
            world = self.world(case, sim, lambda _: None)
            alerts = case.scenario.alerts(case.variant)
            world.one_pass()
            case.scenario.before(world, alerts)
            case.scenario.act(world, alerts)
            world.recover(list(alerts[case.scenario.skip :]))
            world.close()
        finally:
            sim.close()

    def world(self, case: Case, sim: SimProcess, report: Report, deadline_s: float = 2.5) -> World:
        # On Postgres an account of its own is what makes a run's database empty.
        app_id = f"{self.directory.parent.name}{self.directory.name}N{self.runs}-200".upper()
        verb = NaivePlaceOrder if case.scenario.naive else _CAREFUL
        TRACER.disarm()
        # The name that create_app's verb is looked up by.
        setattr(factory, "PlaceOrder", verb)  # noqa: B010
        return World(
            self.directory, self.databases[case.database], self.clock, sim.door, app_id, report, deadline_s
        )

    def _first(self, case: Case, sim: SimProcess, report: Report) -> None:
        """Die while the scenario's first alert is worked on."""
        world = self.world(case, sim, report)
        world.one_pass()
        where, name = case.scenario.crash or ("", "")
        TRACER.arm_by(
            lambda p: "kill" if (f"{p.phase} {p.kind}", p.name[: len(name)]) == (where, name) else None
        )
        world.deliver(case.scenario.alerts(case.variant)[0])

    def _victim(self, case: Case, sim: SimProcess, report: Report) -> None:
        world = self.world(case, sim, report)
        alerts = case.scenario.alerts(case.variant)
        if case.scenario.crash is None:
            world.one_pass()
        case.scenario.before(world, alerts)
        TRACER.arm(case.point)
        case.scenario.act(world, alerts)
        TRACER.disarm()
        report({"points": [[p.kind, p.name, p.nth, p.phase] for p in TRACER.passed]})

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger.jsonl"

    def begin(self, case: Case) -> None:
        """An empty ledger and a database without orders: a new file, or on Postgres an account that has none."""
        self.runs += 1
        self.ledger.unlink(missing_ok=True)
        self.clock.open()
        if case.database == "sqlite":
            for end in ("", "-wal", "-shm"):
                (self.directory / f"orders.db{end}").unlink(missing_ok=True)
            shutil.copyfile(self.template, self.directory / "orders.db")

    def _done(self, work: Callable[[Report], object]) -> tuple[list[dict[str, Any]], int]:
        return self.start(work).finish()

    def start(self, work: Callable[[Report], object]) -> Child:
        return Child.start(work, self.directory / "log")


_CAREFUL = PlaceOrder
