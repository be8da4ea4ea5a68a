"""The verdict on any number of alerts in one run, which their rows' `strategy` tells apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tests.chaos.judge import CLEAR_NO, TAG, Verdict
from tests.chaos.world import Sent

NEVER = frozenset({"NOT_PLACED", "REJECTED", "DENIED", "NOT_SENT", "EXPIRED"})
"""States in which the broker has no order."""


def tally(
    alerts: Sequence[Sent],
    rows: Iterable[dict[str, Any]],
    ledger: Iterable[dict[str, Any]],
    *,
    must: Collection[str],
) -> Verdict:
    """Any number of alerts, told apart by their rows' `strategy` and tag. `must`: those that have no excuse."""
    verdict = Verdict()
    row_of = _rows_by_alert(verdict, rows)
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in ledger:
        if line["kind"] == "order":
            lines.setdefault(line["body"]["orderTag"], []).append(line)
    for sent in alerts:
        row = row_of.get(sent.name)
        mine = lines.pop(row["tag"], []) if row else []
        placed = [line["order_id"] for line in mine if line["order_id"] is not None]
        if len(mine) > 1:
            verdict.note("doubled", f"{sent.name}: {len(mine)} order POSTs")
        for line in mine:
            body = {name: value for name, value in line["body"].items() if name != "orderTag"}
            if body != sent.means or not TAG.fullmatch(line["body"]["orderTag"]):
                verdict.note("changed", f"{sent.name}: expected {sent.means}, was {line['body']}")
        if row is None:
            if sent.name in must:
                verdict.note("lost", f"{sent.name}: no row")
        elif placed and (row["broker_order_id"] not in (*placed, None) or row["state"] in NEVER):
            verdict.note(
                "unaccounted", f"{sent.name}: orders {placed}, row {row['state']} {row['broker_order_id']}"
            )
        elif not placed and (sent.name in must or row["state"] not in CLEAR_NO | {"EXPIRED"}):
            verdict.note("lost", f"{sent.name}: no order, row {row['state']} {row['code']}")
        verdict.review += row is not None and row["state"] == "NEEDS_REVIEW"
    for tag, orphans in lines.items():
        verdict.note("unaccounted", f"{len(orphans)} orders under {tag}, which no alert's row has")
    return verdict


def _rows_by_alert(verdict: Verdict, rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["strategy"] in found:
            verdict.note("unaccounted", f"{row['strategy']} has more than one row")
        found[row["strategy"]] = row
    return found


def all_rows(get: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Every order that the API lists, page by page."""
    rows: list[dict[str, Any]] = []
    more = ""
    while True:
        page = get(f"/api/v1/orders?limit=200{more}")
        rows += page["orders"]
        if page["next_cursor"] is None:
            return rows
        more = f"&cursor={page['next_cursor']}"
