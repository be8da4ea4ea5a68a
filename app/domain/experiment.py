"""Trying things out on a part of the orders: flags by percentage, and experiments with variants. Pure.

Who is in which part is decided by a hash, never by chance: the same strategy and the same signal come to the same
part on every instance, at every repeat, and after every restart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.alert import Product
from app.domain.order import OrderKind, Side
from app.domain.risk import Denial

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
MIN_VARIANTS, MAX_VARIANTS = 2, 10
MAX_WEIGHT = 10_000
HUNDRED = 100


def share(*words: str) -> float:
    """Where these words fall in [0, 1), evenly and always the same."""
    digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that is on for `percent` of the strategies, and on or off for the named ones whatever their hash."""

    percent: int = HUNDRED
    strategies: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= HUNDRED:
            raise ValueError(f"percent: expected 0 to 100, was {self.percent}")

    def is_on(self, name: str, strategy: str) -> bool:
        """Raising the percentage keeps everybody who is in."""
        said = self.strategies.get(strategy)
        return share("flag", name, strategy) * HUNDRED < self.percent if said is None else said


ENTRIES = "entries"
FLAGS = {ENTRIES: "strategies that may enter; exits always pass"}
"""Every flag that something asks for."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of doing it. A percent that is None is the setting's."""

    name: str
    weight: int = 1
    sl_percent: Decimal | None = None
    tp_percent: Decimal | None = None
    kind: OrderKind = OrderKind.MARKET
    """LIMIT: at the touch, a BUY at the ask and a SELL at the bid."""

    def __post_init__(self) -> None:
        _named(self.name)
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"weight of {self.name}: expected 1 to {MAX_WEIGHT}, was {self.weight}")
        if self.kind is OrderKind.STOP_LIMIT:
            raise ValueError(f"kind of {self.name}: expected MARKET or LIMIT, was {self.kind}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """Variants over the entries of some strategies (None: of all). What it has decided stays with the order."""

    name: str
    variants: tuple[Variant, ...]
    strategies: frozenset[str] | None = None
    running: bool = True

    def __post_init__(self) -> None:
        _named(self.name)
        names = [v.name for v in self.variants]
        if not MIN_VARIANTS <= len(names) <= MAX_VARIANTS or len(set(names)) != len(names):
            raise ValueError(
                f"variants: expected {MIN_VARIANTS} to {MAX_VARIANTS} with names of their own, was {names}"
            )

    def is_for(self, strategy: str) -> bool:
        return self.strategies is None or strategy in self.strategies

    def overlaps(self, other: Experiment) -> bool:
        if self.strategies is None or other.strategies is None:
            return True
        return bool(self.strategies & other.strategies)

    def variant(self, strategy: str, signal: str) -> Variant:
        """The variant of one signal (the digest of its alert's key), in proportion to the weights."""
        place = share("experiment", self.name, strategy, signal) * sum(v.weight for v in self.variants)
        for one in self.variants:
            place -= one.weight
            if place < 0:
                return one
        return self.variants[-1]

    def label(self, variant: Variant) -> str:
        """What stands on the order."""
        return f"{self.name}/{variant.name}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an entry was given: the label for its row, and how it is to be sent."""

    label: str
    variant: Variant


@dataclass(frozen=True, slots=True)
class Rollout:
    """All that is being tried out just now. Without anything, everything is as the settings say."""

    entries: Flag = field(default_factory=Flag)
    experiments: tuple[Experiment, ...] = ()

    def denial(self, strategy: str) -> Denial | None:
        """Why a strategy may not enter."""
        if self.entries.is_on(ENTRIES, strategy):
            return None
        who = f"strategy {strategy}" if strategy else "an alert without a strategy"
        return Denial(
            "entries_off",
            f"{who} is not among those that may enter (flag {ENTRIES}: {self.entries.percent} %)",
        )

    def choose(self, strategy: str, signal: str, product: Product) -> Chosen | None:
        """The variant of one entry; None: no running experiment is about it."""
        for experiment in self.experiments:
            if not experiment.running or not experiment.is_for(strategy):
                continue
            if not product.takes_tag and any(v.kind is not OrderKind.MARKET for v in experiment.variants):
                continue  # BO and CO have price rules of their own: not compared with what they cannot be
            found = experiment.variant(strategy, signal)
            return Chosen(experiment.label(found), found)
        return None


def at_touch(side: Side, bid: Decimal, ask: Decimal, tick: Decimal) -> Decimal:
    """The price of a LIMIT order that trades at once against the best offer: on the tick, on the far side of it."""
    touch = ask if side is Side.BUY else bid
    rest = touch % tick
    if not rest:
        return touch
    return touch - rest + tick if side is Side.BUY else touch - rest


def first_overlap(experiments: Iterable[Experiment]) -> tuple[Experiment, Experiment] | None:
    """Two running experiments about the same strategies: an order can be in one only."""
    running = [e for e in experiments if e.running]
    for place, one in enumerate(running):
        for other in running[place + 1 :]:
            if one.overlaps(other):
                return one, other
    return None


def _named(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"name: expected 1 to 32 of a-z, 0-9, - and _, was {name[:40]!r}")
