"""A row of the table of jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time

from app.domain.alert import IST
from app.domain.session import is_trading_day
from app.web.ports import Ports


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
    at: time | None = None
    """IST: once on each trading day, from then until `until`; one that failed is tried again every `every_s`."""
    until: time = time(23, 59)
    words: str = ""
    """When, for a person, where `due` says it and the timer only asks."""

    def slot_at(self, ports: Ports, now: datetime) -> datetime | None:
        """The beginning of the slot that `now` lies in: whichever instance comes first runs it, and nobody else."""
        if self.at is None:
            every = self.every_s(ports)
            return datetime.fromtimestamp(now.timestamp() // every * every, UTC)
        local = now.astimezone(IST)
        if not is_trading_day(local.date()) or not self.at <= local.time() < self.until:
            return None
        return datetime.combine(local.date(), self.at, IST).astimezone(UTC)

    def when(self, ports: Ports) -> str:
        """For a person."""
        if self.at is None:
            return self.words or f"every {self.every_s(ports):g} s"
        return f"{self.at:%H:%M} IST on trading days"
