"""service.job_runs.JobRuns on SQLite and Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from app.domain.order import Scope
from app.service.audit_check import BROKEN
from app.service.job_runs import JobRun
from app.store.engine import Database
from app.store.sql_orders import of_scope, upsert
from app.store.tables_notices import job_runs

MOST_CHARS = 2000
CLOCKS_APART = timedelta(seconds=30)
"""How far an instance's clock may be ahead of the database's. NTP keeps them within a second, and Google's tokens are
given 10 s (web/middleware/scheduler.py). Below the minute after which ReconcileNotRun pages: what a clock was ahead by
less than this is waited for."""
SINCE = "; since then "
r = job_runs.c


class SqlJobRuns:
    def __init__(self, database: Database, scope: Scope) -> None:
        self._database, self._scope = database, scope

    def begin(
        self, name: str, host: str, owner: str, slot_at: datetime | None, again_after: timedelta | None
    ) -> bool:
        with self._database.write() as connection:
            now = self._database.now(connection)
            row = connection.execute(select(job_runs).where(*self._own(name, host)).with_for_update())
            last = row.one_or_none()
            if slot_at and again_after is not None and last and not _is_free(last, slot_at, now, again_after):
                return False
            kept = slot_at or (last.slot_at if last is not None else None)
            # `ok` and `result` stay those of the run before: a run that has not ended says nothing, and dismisses no alarm.
            values = {"slot_at": kept, "owner": owner, "started_at": now, "ended_at": None}
            new = upsert(connection)(job_runs).values(
                mode=self._scope.mode.value,
                account=self._scope.account,
                name=name,
                host=host,
                result="",
                **values,
            )
            keys = [r.mode, r.account, r.name, r.host]
            connection.execute(new.on_conflict_do_update(index_elements=keys, set_=values))
            return True

    def end(self, name: str, host: str, owner: str, result: str, *, ok: bool) -> None:
        with self._database.write() as connection:
            now = self._database.now(connection)
            mine = (*self._own(name, host), r.owner == owner, r.ended_at.is_(None))
            before = connection.execute(select(r.result).where(*mine).with_for_update()).scalar()
            if before is None:
                return
            said = result if ok else _with_finding(before, result)
            values = {"ended_at": now, "ok": ok, "result": said[:MOST_CHARS]}
            if ok:
                values["last_success_at"] = now
            connection.execute(update(job_runs).where(*mine).values(values))

    def last(self) -> tuple[JobRun, ...]:
        wanted = select(job_runs).where(of_scope(job_runs, self._scope)).order_by(r.name, r.host)
        with self._database.read() as connection:
            rows = connection.execute(wanted)
            return tuple(_run_of(row) for row in rows)

    def _own(self, name: str, host: str) -> tuple[Any, ...]:
        return of_scope(job_runs, self._scope), r.name == name, r.host == host


def _run_of(row: Any) -> JobRun:  # noqa: ANN401 - a row
    run = JobRun(**{f: getattr(row, f) for f in JobRun.__slots__})
    return run if run.ended_at is not None else replace(run, ok=None, result="")


def _with_finding(before: str, result: str) -> str:
    """What a verification found stands until one finds nothing: a run that could not look proves nothing."""
    if not before.startswith(BROKEN) or result.startswith(BROKEN):
        return result
    return before.partition(SINCE)[0] + SINCE + result


def _is_free(last: Any, slot_at: datetime, now: datetime, again_after: timedelta) -> bool:  # noqa: ANN401 - a row
    if last.slot_at is None or last.slot_at < slot_at:
        return True
    if last.slot_at > slot_at:
        # A slow clock's slot, a later one has been run; but the later one is void where it has not come yet: the clock that
        # took it was ahead, and the job would rest until then. Two that are ahead by the same still agree on a slot.
        return bool(last.slot_at > now + CLOCKS_APART)
    if last.ended_at is None:
        return True
    return not last.ok and now - last.ended_at >= again_after
