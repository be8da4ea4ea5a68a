"""Whether the audit is whole: the chain of each order, and the seals over all of them.

An order's chain shows a changed, lost, added or swapped event of that order. It says nothing when the order is gone,
or when its end was cut and its row made to fit. Seals do: each names the orders that changed since the one before,
how far each had come and with which hash, and carries the hash of the seal before. Whoever wants to hide more must also
rewrite the seals; a seal noted elsewhere (in the log, in a bucket) then no longer fits (`anchors`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Protocol

FIRST_HASH = ""
"""What stands before an order's first event and before the first seal."""
VERIFY_JOB = "verify-audit"
BROKEN = "AuditBroken"
"""How the result of that job begins when the audit is not whole (the name of the error below)."""
SEAL_ORDERS_AT_ONCE = 500
"""A seal is one short write: on SQLite nobody else writes meanwhile."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written, and where."""

    what: str
    order_id: str | None = None
    sequence: int | None = None
    seal: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An order's row beside one of its events; an order without any has one link, whose `sequence` is None."""

    order_id: str
    event_count: int
    head_hash: str
    sequence: int | None
    prev_hash: str | None
    hash: str | None
    computed: str | None
    """What the hash should be by the event's content and its own `prev_hash`. None: the content is unreadable."""


@dataclass(frozen=True, slots=True)
class Seal:
    number: int
    upto: int
    """Events that this seal and all before it stand on."""
    sealed_at: datetime | None
    """None: unreadable."""
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """How far an order's chain had come when it was sealed."""

    order_id: str
    event_count: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class Witness:
    """A seal beside one of its heads (None: it has none), and the hash that this event has now (None: it is gone)."""

    seal: Seal
    head: Head | None
    found: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An event for export, with what its order's row says of it; None where the row is gone."""

    at: datetime | None
    order_id: str
    sequence: int
    event: str
    status: str | None
    mode: str | None
    account: str | None
    client: str | None
    ticker: str | None
    side: str | None
    quantity: int | None
    detail: str
    """JSON, as it is kept."""
    prev_hash: str
    hash: str


class Reading(Protocol):
    """One moment of the database, however long the reading takes. Everything streams."""

    def links(self) -> Iterator[Link]:
        """All orders with all their events, an order's together and in sequence."""

    def orphans(self) -> Iterator[tuple[str, int]]:
        """Events whose order is gone."""

    def witnesses(self) -> Iterator[Witness]:
        """All seals with all their heads, in sequence."""

    def heads_without_seal(self) -> Iterator[int]:
        """Numbers of seals that are gone while their heads are still there."""

    def unsealed(self) -> int:
        """Orders that changed since they were sealed."""

    def entries(self, first: date | None, last: date | None) -> Iterator[Entry]:
        """Events of these IST dates, both included, oldest first."""


class AuditLog(Protocol):
    """Every method raises StoreUnavailable when the database does not answer."""

    def seal(self) -> Seal | None:
        """The next seal, over at most a bounded number of orders. None: nothing changed, or another was faster."""

    def newest(self, limit: int) -> tuple[Seal, ...]:
        """The last seals, newest first."""

    def after(self, number: int, limit: int) -> tuple[Seal, ...]:
        """The seals after this one, oldest first."""

    def reading(self) -> AbstractContextManager[Reading]: ...


class SealVault(Protocol):
    """Where copies of seals are kept; what is there is never replaced."""

    def put(self, seal: Seal) -> bool:
        """False: it is there already. Raises ServiceError."""

    def hash_of(self, number: int) -> str | None:
        """Of the copy with this number. None: there is none. Raises ServiceError."""


class SealHash:
    """Over what a seal says and then over each of its heads, in their order."""

    def __init__(self, number: int, upto: int, sealed_at: datetime | None, previous: str) -> None:
        at = None if sealed_at is None else sealed_at.astimezone(UTC).isoformat()
        self._sum = hashlib.sha256()
        self._add([number, upto, at, previous])

    def add(self, head: Head) -> None:
        self._add([head.order_id, head.event_count, head.head_hash])

    def hex(self) -> str:
        return self._sum.hexdigest()

    def _add(self, line: list[object]) -> None:
        self._sum.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")


class Check:
    """Iterate over it for the faults; the counts are whole afterwards."""

    def __init__(self, reading: Reading, anchors: Mapping[int, str] | None = None) -> None:
        self._reading = reading
        self._anchors = dict(anchors or {})
        self.orders = self.events = self.seals = self.unsealed = 0
        self.last: Seal | None = None

    def __iter__(self) -> Iterator[Fault]:
        for order_id, links in groupby(self._reading.links(), key=lambda link: link.order_id):
            self.orders += 1
            yield from self._chain(order_id, links)
        for order_id, sequence in self._reading.orphans():
            yield Fault("its order is gone", order_id, sequence)
        yield from self._all_seals()
        for number in self._reading.heads_without_seal():
            yield Fault("it is gone, what it stood on is still there", seal=number)
        self.unsealed = self._reading.unsealed()

    def _chain(self, order_id: str, links: Iterable[Link]) -> Iterator[Fault]:
        """At most one fault: what follows a broken link is broken with it."""
        previous, count = FIRST_HASH, 0
        fault: tuple[str, int | None] | None = None
        link = None
        for link in links:
            if link.sequence is None:
                continue
            self.events += 1
            if fault is None:
                fault = _broken(link, count + 1, previous)
                count, previous = count + 1, link.hash or ""
        if fault is None and link is not None:
            fault = _end(link, count, previous)
        if fault is not None:
            yield Fault(fault[0], order_id, fault[1])

    def _all_seals(self) -> Iterator[Fault]:
        before: Seal | None = None
        was_whole = True
        for number, group in groupby(self._reading.witnesses(), key=lambda w: w.seal.number):
            self.seals += 1
            expected = 1 if before is None else before.number + 1
            if number != expected:
                yield Fault(f"it is missing, the next one is {number}", seal=expected)
                was_whole = False
            seal, computed, missing = _sealed(group)
            previous = FIRST_HASH if before is None else before.hash
            is_whole = computed == seal.hash
            if not is_whole:
                yield Fault("it, or what it stands on, was changed", seal=number)
            elif was_whole and seal.prev_hash != previous:
                yield Fault("it does not follow the seal before it", seal=number)
            yield from missing
            if self._anchors.pop(number, seal.hash) != seal.hash:
                yield Fault("it has another hash than was noted elsewhere", seal=number)
            before, was_whole = seal, is_whole
        self.last = before
        for number in sorted(self._anchors):
            yield Fault("it was noted elsewhere, and is gone", seal=number)


def _broken(link: Link, expected: int, previous: str) -> tuple[str, int | None] | None:
    if link.sequence != expected:
        return "the event is missing", expected
    if link.computed != link.hash:
        return "the event was changed", expected
    if link.prev_hash != previous:
        return "the event does not follow the one before it", expected
    return None


def _end(link: Link, count: int, previous: str) -> tuple[str, int | None] | None:
    if count < link.event_count:
        return f"the chain ends early: its row counts {link.event_count} events", count + 1
    if not count:
        return "it has no event: every order is written with its first", 1
    if count > link.event_count:
        return f"the event is one too many: its row counts {link.event_count}", link.event_count + 1
    if previous != link.head_hash:
        return "its row names another last event", None
    return None


def _sealed(group: Iterable[Witness]) -> tuple[Seal, str, list[Fault]]:
    """The seal, the hash it should have, and the events it names that are not there as they were."""
    sum_: SealHash | None = None
    missing: list[Fault] = []
    for witness in group:
        seal, head = witness.seal, witness.head
        if sum_ is None:
            sum_ = SealHash(seal.number, seal.upto, seal.sealed_at, seal.prev_hash)
        if head is None:
            continue
        sum_.add(head)
        if witness.found != head.head_hash:
            gone = "is gone" if witness.found is None else "is another"
            missing.append(
                Fault(f"the event that the seal names {gone}", head.order_id, head.event_count, seal.number)
            )
    assert sum_ is not None  # a group has at least one member
    return seal, sum_.hex(), missing
