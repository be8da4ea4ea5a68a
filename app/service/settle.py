"""What today's order book proves about an order in doubt. Pure: readings in, a verdict out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.order import TAG_PREFIX_LENGTH, Order
from app.service.records import BookOrder, Evidence

WITNESS = timedelta(seconds=5)
"""A reading is fresh when it shows another row at least this much newer than our send: an HTTP date, a 200 or a
filter of the broker's prove nothing about the book itself."""
SLACK = timedelta(seconds=10)
"""How far the broker's clock may stand from ours when the time of a row is compared with the time of a send."""
API = "API"
"""`source` of what came through the API, in real rows (fyers-api.md 2.6)."""


@dataclass(frozen=True, slots=True)
class Settle:
    """When an order counts as never placed. Lower than the defaults only against a broker on loopback."""

    min_reads: int = 5
    min_seconds: float = 90.0

    @property
    def patience(self) -> timedelta:
        """How long after the send the book must have been alive: orders were seen to show up two minutes late."""
        return timedelta(seconds=self.min_seconds * 4 / 3 + WITNESS.total_seconds())

    def proven_absent(self, order: Order, evidence: Evidence, book: Iterable[BookOrder]) -> bool:
        """Enough fresh readings over enough time, the last of a book that was alive after the last of the patience."""
        span = (evidence.last_at - evidence.first_at).total_seconds()
        if evidence.reads < self.min_reads or span < self.min_seconds:
            return False
        return has_witness(order, book, self.patience)


def sent_before(order: Order) -> datetime | None:
    """A moment by which the order had left, if it ever did: the end of its last attempt's budget."""
    return order.sent_at or order.answer_by


def has_witness(order: Order, book: Iterable[BookOrder], newer_by: timedelta = WITNESS) -> bool:
    """Whether the book shows a row that is that much newer than our send."""
    sent = sent_before(order)
    return sent is not None and any(row.placed_at >= sent + newer_by for row in book)


def is_ours(row: BookOrder, prefix: str) -> bool:
    """A row with our deployment's tag. Nothing else is ever adopted."""
    tag = (row.tag or "").upper()
    return row.parent_id is None and len(tag) > TAG_PREFIX_LENGTH and tag.startswith(prefix.upper())


def looks_like(row: BookOrder, order: Order) -> bool:
    """BO and CO carry no tag: contract, side, product, quantity, source and time have to do."""
    if row.parent_id is not None or row.tag is not None or row.source.upper() != API:
        return False
    same = (row.ticker, row.side, row.product, row.quantity)
    if same != (order.ticker, order.side, order.product.value, order.quantity):
        return False
    begun = order.send_by or order.created_at
    return begun is not None and row.placed_at >= begun - SLACK


def fitting(
    order: Order, doubts: Sequence[Order], book: Iterable[BookOrder], claimed: Collection[str]
) -> tuple[BookOrder, ...] | None:
    """The unclaimed rows that may be this untagged order. None: another doubt fits them as well, so nobody can say."""
    rows = tuple(r for r in book if r.broker_order_id not in claimed and looks_like(r, order))
    rivals = [o for o in doubts if o.id != order.id and any(looks_like(r, o) for r in rows)]
    return None if rivals else rows
