"""The table at the end of a run, and what makes the run a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.judge import Verdict
from tests.chaos.register import SOMETIMES

KINDS = ("doubled", "lost", "unaccounted", "changed")
SHOWN_FAILURES = 12


@dataclass
class Line:
    """One scenario on one database."""

    scenario: str
    database: str
    naive: bool = False
    points: int = 0
    runs: int = 0
    kills: int = 0
    review: int = 0
    wanted_kills: int = 0
    """How many this part has to reach by itself: a sum hides a part that does nothing."""
    wanted_runs: int = 0
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def add(self, killed: bool, verdict: Verdict) -> None:
        self.runs += 1
        self.kills += killed
        self.review += verdict.review
        for kind in KINDS:
            self.wrong[kind] += getattr(verdict, kind)


def render(lines: Sequence[Line]) -> str:
    head = ("scenario", "database", "points", "runs", "kills", *KINDS, "to review")
    rows = [
        (line.scenario, line.database, line.points, line.runs, line.kills, *line.wrong.values(), line.review)
        for line in lines
    ]
    careful = [line for line in lines if not line.naive]
    rows.append(
        (
            "all but the naive one",
            "",
            sum(line.points for line in careful),
            sum(line.runs for line in careful),
            sum(line.kills for line in careful),
            *(sum(line.wrong[kind] for line in careful) for kind in KINDS),
            sum(line.review for line in careful),
        )
    )
    texts = [tuple(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )


def problems(
    lines: Sequence[Line],
    wanted_kills: int,
    passed: Iterable[tuple[str, str]],
    register: Mapping[str, frozenset[str]] | None,
) -> list[str]:
    """Why the run fails, in words; empty when it passes. `wanted_kills`: of the lines that name no number of their own."""
    found = []
    careful = [line for line in lines if not line.naive]
    for kind in KINDS:
        number = sum(line.wrong[kind] for line in careful)
        if number:
            found.append(f"{number} {kind}")
    kills = sum(line.kills for line in careful if not line.wanted_kills)
    if kills < wanted_kills:
        found.append(f"expected {wanted_kills} kills, were {kills}")
    for line in careful:
        for what, number, wanted in (
            ("kills", line.kills, line.wanted_kills),
            ("runs", line.runs, line.wanted_runs),
        ):
            if number < wanted:
                found.append(f"{line.scenario} on {line.database}: expected {wanted} {what}, were {number}")
    found += [
        f"{line.scenario} on {line.database} doubled no order: the harness cannot fail"
        for line in lines
        if line.naive and not line.wrong["doubled"]
    ]
    if register is None:  # a part of the run says nothing about the names
        return found
    met = set(passed)
    known = {(kind, name) for kind, names in register.items() for name in names}
    found += [f"no case is registered for {kind} {name}" for kind, name in sorted(met - known - SOMETIMES)]
    found += [f"no scenario passes {kind} {name} any more" for kind, name in sorted(known - met)]
    return found
