"""Heartbeats and runs of jobs in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.errors import StoreUnavailable
from app.service.heartbeat import Beat, Watched, missing_text
from app.service.job_runs import JobRun
from app.service.ports import Clock, Notifier


class FakeHeartbeats:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[tuple[str, str], Watched] = {}
        self.down = False
        self.busy: list[tuple[str, str, int]] = []
        self.listening: tuple[datetime, datetime] | None = None
        """Since when, and the last word of it."""

    def came(self, beat: Beat) -> bool:
        if self.down:
            raise StoreUnavailable("the database is down")
        before = self.rows.get((beat.client, beat.strategy))
        now = self.clock.now()
        self.rows[beat.client, beat.strategy] = Watched(
            beat.client, beat.strategy, beat.every_seconds, now, None
        )
        return before is not None and before.missing_since is not None

    def watched(self) -> tuple[Watched, ...]:
        return tuple(self.rows.values())

    def missed(self, ones: Sequence[Watched], tell: Notifier) -> int:
        marked = [o for o in ones if self.rows[o.client, o.strategy] == o and o.missing_since is None]
        for one in marked:
            self.rows[one.client, one.strategy] = replace(one, missing_since=self.clock.now())
        if marked:
            tell.notify("heartbeat_missing", missing_text(marked), page=True)
        return len(marked)

    def listens(self, silence: timedelta) -> datetime:
        now = self.clock.now()
        since = (
            now
            if self.listening is None or now - self.listening[1] > silence
            else min(now, self.listening[0])
        )
        self.listening = since, now
        return since

    def bursts(self, within: timedelta, more_than: int) -> list[tuple[str, str, int]]:
        return [b for b in self.busy if b[2] > more_than]


class FakeJobRuns:
    """Every slot is free."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[tuple[str, str], JobRun] = {}

    def begin(
        self, name: str, host: str, owner: str, slot_at: datetime | None, again_after: timedelta | None
    ) -> bool:
        self.rows[name, host] = JobRun(name, host, slot_at, self.clock.now(), None, None, "", None)
        return True

    def end(self, name: str, host: str, owner: str, result: str, *, ok: bool) -> None:
        now = self.clock.now()
        self.rows[name, host] = replace(self.rows[name, host], ended_at=now, ok=ok, result=result)

    def last(self) -> tuple[JobRun, ...]:
        return tuple(self.rows.values())
