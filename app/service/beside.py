"""What the jobs beside the requests work with: the outbox and its sender, heartbeats, and the record of their runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from app.service.heartbeat import BurstWatch, Heartbeats, MissingWatch
from app.service.job_runs import JobRuns


@dataclass(frozen=True, slots=True)
class Beside:
    heartbeats: Heartbeats
    job_runs: JobRuns
    send: Callable[[], str]
    """One pass of the outbox's sender, for the holder of its job's lease."""
    purge: Callable[[], int]
    """Forget old notices."""
    flush: Callable[[float], bool]
    """Wait so many seconds for the notices told outside of a transaction to be kept. False: the time was too short."""
    missing: MissingWatch = field(default_factory=MissingWatch)
    bursts: BurstWatch = field(default_factory=BurstWatch)
