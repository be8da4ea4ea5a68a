"""The verdict on one run, by the broker's ledger against the alerts that were sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.world import PREFIX, Sent

TAG = re.compile(PREFIX + "[A-Z2-7]{16}")
CLEAR_NO = frozenset({"NOT_PLACED", "REJECTED", "DENIED", "NEEDS_REVIEW"})
"""Ends that a trader can read as "no order" or "look"; an order that was never sent also ends as EXPIRED."""
HAS_ORDER = frozenset({"ACCEPTED", "PARTIALLY_FILLED", "FILLED", "CANCELLED", "NEEDS_REVIEW"})


@dataclass
class Verdict:
    """What was wrong, by kind; `review` is allowed and counted."""

    doubled: int = 0
    lost: int = 0
    unaccounted: int = 0
    changed: int = 0
    review: int = 0
    killed: bool = False
    why: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.doubled or self.lost or self.unaccounted or self.changed)

    def note(self, kind: str, text: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.why.append(f"{kind}: {text}")


def judge(
    alerts: Sequence[Sent],
    ledger: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    answered: Sequence[dict[str, Any]],
    must: Collection[str],
) -> Verdict:
    """`rows` are the orders as the service shows them in the end, `answered` every answer, `must` the names of the
    alerts of which nothing was committed when the process died: those have no excuse.
    """
    verdict = Verdict()
    by_place: dict[object, Sent] = {sent.place: sent for sent in alerts}
    orders = [line for line in ledger if line["kind"] == "order"]
    posted: Counter[str] = Counter()
    placed: dict[str, dict[str, Any]] = {}
    for line in orders:
        body = dict(line["body"])
        sent = by_place.get((body.get("symbol"), body.get("side")))
        tag = body.pop("orderTag", "")
        if sent is None:
            verdict.note("unaccounted", f"no alert means {body}")
            continue
        posted[sent.name] += 1
        if body != sent.means or not TAG.fullmatch(tag):
            verdict.note("changed", f"{sent.name}: expected {sent.means}, was {body}, tag {tag!r}")
        if line["order_id"] is not None:
            placed[sent.name] = line
    for answer in answered:
        if answer["status"] >= 500 and answer["status"] != 503:
            verdict.note("unaccounted", f"{answer['answer']}: answered {answer['status']}")
    for sent in alerts:
        # An order POST that came to nothing counts too: what may have been sent is never sent again.
        if posted[sent.name] > 1:
            verdict.note("doubled", f"{sent.name}: {posted[sent.name]} order POSTs")
        _account(verdict, sent, placed.get(sent.name), rows, answered, sent.name in must)
    return verdict


def _account(
    verdict: Verdict,
    sent: Sent,
    line: dict[str, Any] | None,
    rows: Sequence[dict[str, Any]],
    answered: Sequence[dict[str, Any]],
    must: bool,
) -> None:
    mine = [row for row in rows if (row["symbol"], {"BUY": 1, "SELL": -1}[row["side"]]) == sent.place]
    states = [row["state"] for row in mine]
    if len(mine) > 1:
        verdict.note("unaccounted", f"{sent.name}: rows {states}")
        return
    row = mine[0] if mine else None
    verdict.review += states == ["NEEDS_REVIEW"]
    if line is not None:
        rejected_there = row is not None and row["state"] == "REJECTED" and row["broker_order_id"] is not None
        if (
            row is None
            or not (row["state"] in HAS_ORDER or rejected_there)
            or row["tag"] != line["body"]["orderTag"]
        ):
            verdict.note("unaccounted", f"{sent.name}: order {line['order_id']} in the ledger, row {states}")
        elif row["state"] != "NEEDS_REVIEW" and row["broker_order_id"] != line["order_id"]:
            verdict.note("unaccounted", f"{sent.name}: row knows {row['broker_order_id']}, ledger {line}")
        return
    if any(a["answer"] == sent.name and a["status"] == 200 for a in answered):
        verdict.note("lost", f"{sent.name}: answered 200, row {states}, no order in the ledger")
    elif must:
        verdict.note(
            "lost", f"{sent.name}: sent again after a crash before its intent, and no order came of it"
        )
    elif row is None:
        verdict.note("lost", f"{sent.name}: neither an order nor a row")
    elif row["state"] not in CLEAR_NO and not (row["state"] == "EXPIRED" and row["broker_order_id"] is None):
        verdict.note("lost", f"{sent.name}: no order, and its row ended as {row['state']}")
