"""The fault matrix's rows, what becomes of one alert in it, and the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.chaos.judge import Verdict
from tests.chaos.world import UNSETTLED, Sent

TAKES_BACK = frozenset({"REJECTED", "NOT_PLACED"})


@dataclass(frozen=True, slots=True)
class Way:
    """A fault of the order POST, and what its row has to be in the end."""

    fault: str
    end: str
    appear_after: float | None = None
    seconds: float | None = None
    fill_mode: str = "instant"
    refused: bool = False
    """The broker says a provable no: nobody hears it when the sender is dead."""
    drops: bool = False
    """Every connection that is open and idle is closed by the broker right before."""

    def __str__(self) -> str:
        if self.drops:
            return "idle connections dead"
        more = f" {self.appear_after:.0f} s" if self.appear_after else ""
        more += ", rejected later" if self.fault and self.fill_mode != "instant" else ""
        return (self.fault or self.fill_mode) + more

    def after(self, *, crash: bool) -> str:
        return "NOT_PLACED" if crash and self.refused else self.end


F, N, R = "FILLED", "NOT_PLACED", "REJECTED"
WAYS = (
    Way("reset_created", F),
    Way("reset", N),
    Way("reset_unread", N),
    Way("disconnect_created", F),
    Way("disconnect", N),
    Way("hang", N, seconds=5),
    Way("hang_created", F, seconds=5),
    Way("slow_created", F, seconds=3),
    Way("slow", F, seconds=3),
    Way("html_200", N),
    Way("html_200_created", F),
    Way("truncated", N),
    Way("truncated_created", F),
    Way("short_body", N),
    Way("short_body_created", F),
    Way("html_502", N),
    Way("html_502_created", F),
    Way("html_503_created", F),
    Way("http_500", N),
    Way("http_500_created", F),
    Way("cloudflare_403_created", F),
    Way("no_ack", N),
    Way("no_ack_created", F),
    Way("late_reset", F, appear_after=3),
    Way("late_no_ack", F, appear_after=30),
    Way("late_html_502", F, appear_after=60),
    Way("late_reset", F, appear_after=119),
    Way("late_hang", F, appear_after=119, seconds=5),
    Way("rate_429", R, refused=True),
    Way("auth_401", R, refused=True),
    Way("algo_restricted", R, refused=True),
    Way("rms_reject", R, refused=True),
    Way("rms_reject_with_id", R),
    Way("", R, fill_mode="reject_async"),
    Way("reset_created", R, fill_mode="reject_async"),
    Way("drip_body", F),
    Way("drip_headers", F),
    Way("close_after", F),
    Way("", F, drops=True),
    Way("", F),
)
QUICK = ("reset_created", "reset", "late_reset 3 s", "rms_reject", "close_after", "no_ack_created")
"""For `make test`, with quick rules of settling: nothing that is later than these rules wait."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the table shows of a cell."""

    name: str
    crash: bool
    sends: int
    end: str
    verdict: dict[str, Any]


@dataclass
class Cell:
    """One alert's fate."""

    way: Way
    crash: bool
    sent: Sent
    answers: list[int] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    died: bool = False
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def taken(self) -> bool:
        """Whether the broker took it, and the exchange did not reject it afterwards."""
        has_id = any(line["order_id"] is not None for line in self.lines)
        return has_id and self.way.fill_mode != "reject_async" and self.way.fault != "rms_reject_with_id"

    def judge(self) -> None:
        """By the ledger, and by everything that the row has ever been."""
        name, note = f"{self.way}, {'dies' if self.crash else 'lives'}", self.verdict.note
        if len(self.lines) > 1:
            note("doubled", f"{name}: {len(self.lines)} order POSTs")
        if not self.lines:
            note("lost", f"{name}: no order POST reached the broker")
        if self.crash and not self.died:
            note("unaccounted", f"{name}: nobody was killed")
        for line in self.lines:
            body = {k: v for k, v in (line["body"] or {}).items() if k != "orderTag"}
            if body and body != self.sent.means:
                note("changed", f"{name}: expected {self.sent.means}, was {body}")
        if not self.row:
            note("lost", f"{name}: no row")
            return
        wrong = [state for state in self.states if state in TAKES_BACK]
        if self.taken and (wrong or 422 in self.answers):
            note("unaccounted", f"{name}: accepted, and called {wrong}; answers {self.answers}")
        end = self.row["state"]
        if end in UNSETTLED or end != self.way.after(crash=self.crash):
            note("unaccounted", f"{name}: ended as {end}, expected {self.way.after(crash=self.crash)}")
        placed = [line["order_id"] for line in self.lines if line["order_id"] is not None]
        if self.taken and self.row["broker_order_id"] not in placed:
            note("unaccounted", f"{name}: row knows {self.row['broker_order_id']}, ledger {placed}")
        if set(self.answers) & {500, 502, 504}:
            note("unaccounted", f"{name}: answered {self.answers}")
        self.verdict.review += end == "NEEDS_REVIEW"

    def result(self) -> Result:
        self.verdict.killed = self.died
        return Result(
            str(self.way), self.crash, len(self.lines), self.row.get("state", "no row"), vars(self.verdict)
        )


def render(found: dict[int, list[Result]]) -> str:
    """A row per fault; a column per number of instances with and without a crash."""
    columns = [(n, crash) for n in found for crash in (False, True)]
    head = ["fault of the order POST", *(f"{n}, {'crash' if c else 'no crash'}" for n, c in columns)]
    lines: dict[str, list[str]] = {}
    for n, crash in columns:
        for result in found[n]:
            if result.crash is crash:
                wrong = " WRONG" if result.verdict["why"] else ""
                lines.setdefault(result.name, []).append(f"{result.sends} {result.end}{wrong}")
    table = [head, *([name, *says] for name, says in lines.items())]
    widths = [max(len(row[n]) for row in table) for n in range(len(head))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in table)
