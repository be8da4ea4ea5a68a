"""The parts of a run besides its kills, each as lines of the table; a tenth of it asks each for a tenth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import crowd, exits, machines, matrix, outage, services, ways
from tests.chaos.fork import fork_each
from tests.chaos.judge import Verdict
from tests.chaos.run import MASTERS
from tests.chaos.table import Line
from tests.chaos.world import SetClock

FULL = {
    "copies": 200,
    "services": 200,
    "broker back": 30,
    "services back": 30,
    "exits": 50,
    "exits in memory": 150,
    "machine": 2400,
    "sql machine": 100,
    "stops": 50,
    "flushes": 50,
}
Found = tuple[Line, list[str]]


@dataclass(frozen=True, slots=True)
class Parts:
    """Where they run. Without a Postgres only what needs none does."""

    directory: Path
    template: Path
    postgres: Any
    """None, or what has the server's `url` and a `fresh` one of a server of its own."""
    workers: int
    share: float = 1.0
    """Of FULL."""

    def number(self, what: str) -> int:
        return max(1, round(FULL[what] * self.share))

    def all(self, only: str) -> list[Found]:
        """Those whose line has `only` in its name."""
        self.directory.mkdir()
        found: list[Found] = []
        for name, database, work in self._all():
            if only in name and (database in ("memory", "sqlite") or self.postgres is not None):
                wanted, verdicts = work()
                found.append(_line(name, database, wanted, verdicts))
        return found

    def _all(self) -> Sequence[tuple[str, str, Callable[[], tuple[int, list[Verdict]]]]]:
        return (
            ("state machine", "memory", lambda: self._machine("machine", "StreetMachine")),
            ("state machine", "sqlite", lambda: self._machine("sql machine", "SqlMachine")),
            ("64 exits of one position", "memory", lambda: self._exits("exits in memory", postgres=False)),
            ("64 exits of one position", "postgres", lambda: self._exits("exits", postgres=True)),
            ("64 copies of one alert", "postgres", lambda: self._crowd(crowd.copies, "copies")),
            ("the broker is back", "postgres", lambda: self._crowd(crowd.broker_back, "broker back")),
            ("64 copies, three services", "postgres", lambda: self._services("services", services.run)),
            (
                "the broker is back, three services",
                "postgres",
                lambda: self._services("services back", services.broker_back),
            ),
            ("fault matrix, 1 and 3 services", "postgres", self._matrix),
            ("database and Redis gone", "postgres", self._outage),
        )

    def _machine(self, what: str, name: str) -> tuple[int, list[Verdict]]:
        wanted = self.number(what)
        each = -(-wanted // self.workers)

        def work(which: int) -> list[dict[str, Any]]:
            return _plain(machines.run(getattr(machines, name), each, which, self.template))

        return wanted, self._shared(f"{name}-{what}".replace(" ", "-"), work)

    def _exits(self, what: str, *, postgres: bool) -> tuple[int, list[Verdict]]:
        wanted, url = self.number(what), self.postgres.url if postgres else None

        def work(which: int) -> list[dict[str, Any]]:
            return _plain(exits.run(url, range(wanted)[which :: self.workers]))

        return wanted, self._shared(what.replace(" ", "-"), work)

    def _shared(self, name: str, work: Callable[[int], list[dict[str, Any]]]) -> list[Verdict]:
        found = fork_each(self.directory / name, range(self.workers), work)
        return [Verdict(**said) for share in found for said in share]

    def _crowd(self, of: Callable[[crowd.Place, int], list[Verdict]], what: str) -> tuple[int, list[Verdict]]:
        wanted = self.number(what)
        place = self._place(what.replace(" ", "-"))
        return wanted, of(place, wanted)

    def _place(self, name: str) -> crowd.Place:
        directory = self.directory / name
        directory.mkdir()
        crowd.contracts(directory, MASTERS)
        return crowd.Place(directory, self.postgres.url, SetClock())

    def _services(
        self, what: str, of: Callable[[Path, str, int], list[Verdict]]
    ) -> tuple[int, list[Verdict]]:
        wanted, name = self.number(what), what.replace(" ", "_")
        return wanted, of(self.directory / name, self.postgres.fresh(name), wanted)

    def _matrix(self) -> tuple[int, list[Verdict]]:
        """Whole, in real time, or the part of it that a tenth of everything has time for."""
        is_quick = self.share < 1
        urls = {n: self.postgres.fresh(f"matrix_{n}") for n in matrix.INSTANCES}
        wanted = 2 * len(urls) * len(ways.QUICK if is_quick else ways.WAYS)
        return wanted, matrix.run(self.directory / "matrix", urls, is_quick=is_quick)

    def _outage(self) -> tuple[int, list[Verdict]]:
        stops, flushes = self.number("stops"), self.number("flushes")
        own = self.postgres.another(self.directory / "outage-postgres")
        try:
            return stops + flushes, outage.run(self.directory / "outage", own.server, own.url, stops, flushes)
        finally:
            own.close()


def _plain(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [vars(verdict) for verdict in verdicts]


def _line(name: str, database: str, wanted: int, verdicts: Sequence[Verdict]) -> Found:
    line = Line(name, database, wanted_runs=wanted)
    for verdict in verdicts:
        line.add(verdict.killed, verdict)
    return line, [f"{name} on {database}: {why}" for verdict in verdicts for why in verdict.why]
