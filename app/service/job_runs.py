"""What the jobs' last runs came to, and whose turn the next one is. The database keeps it for all instances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class JobRun:
    """The last run of a job; of one that each host has for itself, the last one there."""

    name: str
    host: str
    slot_at: datetime | None
    started_at: datetime
    ended_at: datetime | None
    ok: bool | None
    result: str
    last_success_at: datetime | None


class JobRuns(Protocol):
    """Every method raises StoreUnavailable."""

    def begin(
        self, name: str, host: str, owner: str, slot_at: datetime | None, again_after: timedelta | None
    ) -> bool:
        """Take this slot. Called under the job's lease.

        False: it has been run, or a run of it failed less than `again_after` ago. A run that never ended was a dead
        process's (the lease says so), and counts as none. `again_after` None: a person's own call, always taken. No slot:
        the run is outside of all.
        """

    def end(self, name: str, host: str, owner: str, result: str, *, ok: bool) -> None:
        """How the run ended; nothing when another owner has begun one since."""

    def last(self) -> tuple[JobRun, ...]: ...
