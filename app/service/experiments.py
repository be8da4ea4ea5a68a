"""What an experiment has come to: its variants compared by slippage, hit rate and profit.

A round trip is one entry that was closed whole, first in first out within a client, contract and product. What was
closed outside our orders (a protective leg's fill, a hand) counts at the price of the broker's own fills. Where the
trade book did not tell that price, the trip is counted, and left out of hit rate and profit. What an operator's exit of
all clients has closed of a client's counts for that client, when and at what price that exit was filled.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import sqrt
from statistics import NormalDist, fmean, stdev
from typing import Protocol

from app.domain.alert import ADMIN_CLIENT, Product
from app.domain.experiment import Experiment
from app.domain.order import Order, Purpose, Scope
from app.service.takeover import closed_of

Z95 = NormalDist().inv_cdf(0.975)
METHOD = (
    "95 % intervals: means by the normal approximation (mean ± 1.96 standard errors; too narrow under some 30 values), "
    "hit rates by Wilson's score interval"
)
ENOUGH = 2
"""Values that a spread can be told from."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A holding that changed outside our orders: signed contracts."""

    client: str
    ticker: str
    product: Product
    delta: int
    at: datetime
    price: Decimal | None = None
    """Of the fills that did it; None: not known."""
    exit: str | None = None
    """Id of the operator's exit that took it over, or gave it back: nothing is closed by that alone."""


@dataclass(frozen=True, slots=True)
class Trials:
    entries: tuple[Order, ...]
    """The experiment's orders, whatever became of them."""
    fills: tuple[Order, ...]
    """All orders with a fill in the contracts of those."""
    adjusted: tuple[Adjusted, ...]


class TrialStore(Protocol):
    def trials(self, scope: Scope, experiment: Experiment) -> Trials:
        """Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or a rate with its 95 % interval; None where there are too few values for one."""

    count: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class VariantReport:
    name: str
    weight: int
    orders: int
    """Entries that were given this variant, denied and rejected ones too."""
    filled: int
    slippage: Estimate
    """Rupees per contract: fill price minus the last price for a BUY, the other way round for a SELL. Above zero is
    worse than the price that the order was decided on."""
    still_open: int
    unpriced: int
    """Round trips that were closed, at least in part, outside our orders at a price that nobody told."""
    hit_rate: Estimate
    """Of the priced round trips: those that made money."""
    profit: Estimate
    """Rupees per priced round trip."""
    profit_total: Decimal


def report(experiment: Experiment, trials: Trials) -> tuple[VariantReport, ...]:
    """One for each variant, in the experiment's order."""
    trips = round_trips(trials)
    return tuple(
        _of_variant(v.name, v.weight, [o for o in trials.entries if o.variant == experiment.label(v)], trips)
        for v in experiment.variants
    )


@dataclass(slots=True)
class Trip:
    """One entry and what has been closed of it so far."""

    entry: Order
    left: int
    profit: Decimal = Decimal(0)
    priced: bool = True


@dataclass(frozen=True, slots=True)
class _Step:
    """Signed contracts at a price, at a time."""

    at: datetime
    signed: int
    price: Decimal | None
    order: Order | None


def round_trips(trials: Trials) -> dict[str, Trip]:
    """By the entry's id, for every filled entry among the fills."""
    places: dict[tuple[str, str, Product], list[_Step]] = defaultdict(list)
    handed: dict[str, Counter[str]] = defaultdict(Counter)
    for one in trials.adjusted:
        if one.exit is None:
            places[one.client, one.ticker, one.product].append(_Step(one.at, one.delta, one.price, None))
        elif one.client != ADMIN_CLIENT:
            handed[one.exit][one.client] += one.delta
    for order in trials.fills:
        at = order.filled_at or order.updated_at or order.created_at or LONG_AGO
        others = closed_of(order, handed[order.id])
        own = order.side.sign * order.filled_quantity - sum(others.values())
        for client, signed in others.items():
            places[client, order.ticker, order.product].append(_Step(at, signed, order.fill_price, None))
        places[order.client, order.ticker, order.product].append(_Step(at, own, order.fill_price, order))
    trips: dict[str, Trip] = {}
    for steps in places.values():
        waiting: deque[Trip] = deque()
        for step in sorted(steps, key=lambda s: s.at):
            if step.order is not None and step.order.purpose is Purpose.ENTRY:
                trip = Trip(step.order, abs(step.signed))
                trips[step.order.id] = trip
                waiting.append(trip)
            else:
                _close(waiting, step)
    return trips


def _close(waiting: deque[Trip], step: _Step) -> None:
    left = abs(step.signed)
    while left and waiting:
        trip = waiting[0]
        sign = trip.entry.side.sign
        if sign * step.signed > 0:
            return  # more of the same side, and no entry of ours: nothing of ours is closed by it
        quantity = min(left, trip.left)
        if step.price is None or trip.entry.fill_price is None:
            trip.priced = False
        else:
            trip.profit += sign * quantity * (step.price - trip.entry.fill_price)
        trip.left -= quantity
        left -= quantity
        if not trip.left:
            waiting.popleft()


def _of_variant(name: str, weight: int, entries: list[Order], trips: dict[str, Trip]) -> VariantReport:
    slips = [
        float(o.side.sign * (o.fill_price - o.ltp))
        for o in entries
        if o.filled_quantity and o.fill_price is not None and o.ltp is not None
    ]
    mine = [trips[o.id] for o in entries if o.id in trips]
    closed = [t for t in mine if not t.left]
    priced = [t.profit for t in closed if t.priced]
    return VariantReport(
        name=name,
        weight=weight,
        orders=len(entries),
        filled=sum(o.filled_quantity > 0 for o in entries),
        slippage=mean(slips),
        still_open=len(mine) - len(closed),
        unpriced=len(closed) - len(priced),
        hit_rate=rate(sum(p > 0 for p in priced), len(priced)),
        profit=mean([float(p) for p in priced]),
        profit_total=sum(priced, Decimal(0)),
    )


def mean(values: Sequence[float]) -> Estimate:
    """The normal approximation, by the sample's own spread."""
    if not values:
        return Estimate(0, None, None, None)
    middle = fmean(values)
    if len(values) < ENOUGH:
        return Estimate(len(values), middle, None, None)
    half = Z95 * stdev(values) / sqrt(len(values))
    return Estimate(len(values), middle, middle - half, middle + half)


def rate(hits: int, count: int) -> Estimate:
    """Wilson's score interval: right for few values too, and never outside 0 to 1."""
    if not count:
        return Estimate(0, None, None, None)
    share, z2 = hits / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Estimate(count, share, max(0.0, middle - half), min(1.0, middle + half))
