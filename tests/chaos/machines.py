"""The state machine in memory and over the real store, and so many examples of it."""

from __future__ import annotations

import itertools
import os
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import SCOPE
from tests.chaos.judge import Verdict
from tests.chaos.machine import StreetMachine

STEPS = 40


class SqlMachine(StreetMachine):
    """The same over the real store, in a SQLite file that is a copy of `template`."""

    template: ClassVar[Path]
    opened: ClassVar[Iterator[int]] = itertools.count(1)

    def open_store(self) -> Any:
        self.path = self.template.with_name(f"machine-{os.getpid()}-{next(self.opened)}.db")
        shutil.copyfile(self.template, self.path)
        store = SqlStore(Database(f"sqlite:///{self.path}", self.clock), self.clock)
        store.ensure_scope(SCOPE)
        return store

    def counters(self) -> Counter[str]:
        with self.store.database.read() as connection:
            rows = connection.execute(text("SELECT name, sum(used) FROM caps GROUP BY name")).all()
        return Counter({name: int(used) for name, used in rows})

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.store.close()
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)


def run(
    machine: type[StreetMachine], number: int, which: int, template: Path, *, shrink: bool = True
) -> list[Verdict]:
    """So many examples of the `which`-th share. What failed, cut down to its shortest, is in the first verdict. Cutting down may take minutes."""
    one: Any = type(machine.__name__, (machine,), {"examples": 0, "template": template})
    seed(which)(one)
    how = settings(
        max_examples=number,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
    )
    verdict = Verdict()
    try:
        run_state_machine_as_test(one, settings=how)
    except Exception as error:  # noqa: BLE001 - whatever it was is what the run has found
        notes = "\n".join(getattr(error, "__notes__", ()))
        verdict.note("unaccounted", "".join(traceback.format_exception(error))[-2500:] + notes[-3000:])
    return [verdict, *(Verdict() for _ in range(one.examples - 1))]
