"""Flags and experiments: who is in which part, always the same, and in proportion."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from app.domain.alert import Product
from app.domain.experiment import Experiment, Flag, Rollout, Variant, at_touch, first_overlap
from app.domain.order import OrderKind, Side

THREE = Experiment("stops", (Variant("a", 50), Variant("b", 30), Variant("c", 20)))
NAMES = [f"strategy {n}" for n in range(2000)]


def test_the_same_signal_comes_to_the_same_variant_and_another_strategy_s_to_its_own() -> None:
    signals = [f"digest {n}" for n in range(200)]
    found = [THREE.variant("orb", s).name for s in signals]
    assert found == [THREE.variant("orb", s).name for s in signals]
    assert found != [THREE.variant("vwap", s).name for s in signals]
    other = Experiment("targets", THREE.variants)
    assert found != [other.variant("orb", s).name for s in signals]
    assert "".join(found[:12]) == "aaaaaabaabaa", "as sha256sum says, so on every instance and for good"


def test_signals_split_by_the_weights() -> None:
    counts = Counter(THREE.variant("orb", f"digest {n}").name for n in range(10_000))
    assert {n: round(c / 10_000, 2) for n, c in counts.items()} == {"a": 0.5, "b": 0.3, "c": 0.2}


def test_a_flag_takes_its_percentage_and_raising_it_keeps_who_was_in() -> None:
    inside = {p: {n for n in NAMES if Flag(p).is_on("entries", n)} for p in (0, 10, 60, 100)}
    assert [len(inside[p]) for p in (0, 100)] == [0, 2000]
    assert abs(len(inside[10]) - 200) < 40
    assert abs(len(inside[60]) - 1200) < 60
    assert inside[10] < inside[60]


def test_a_named_strategy_goes_by_its_name() -> None:
    flag = Flag(0, {"orb": True})
    assert flag.is_on("entries", "orb")
    assert not Flag(100, {"orb": False}).is_on("entries", "orb")
    assert Rollout(flag).denial("orb") is None
    denial = Rollout(flag).denial("vwap")
    assert denial is not None
    assert denial.code == "entries_off"
    assert "vwap" in denial.reason


def test_only_a_running_experiment_about_the_strategy_decides() -> None:
    only = Experiment("stops", THREE.variants, frozenset({"orb"}))
    stopped = Experiment("targets", THREE.variants, frozenset({"vwap"}), running=False)
    rollout = Rollout(experiments=(only, stopped))
    chosen = rollout.choose("orb", "d", Product.INTRADAY)
    assert chosen is not None
    assert chosen.label == f"stops/{chosen.variant.name}"
    assert rollout.choose("vwap", "d", Product.INTRADAY) is None
    assert Rollout().choose("orb", "d", Product.INTRADAY) is None


@pytest.mark.parametrize(
    ("product", "is_in"), [(Product.MARGIN, True), (Product.BO, False), (Product.CO, False)]
)
def test_bracket_and_cover_orders_stand_apart_where_kinds_are_compared(product: Product, is_in: bool) -> None:
    kinds = Experiment("kinds", (Variant("market"), Variant("limit", kind=OrderKind.LIMIT)))
    assert (Rollout(experiments=(kinds,)).choose("orb", "d", product) is not None) is is_in


@pytest.mark.parametrize(
    ("side", "bid", "ask", "price"),
    [
        (Side.BUY, "99.95", "100.05", "100.05"),
        (Side.SELL, "99.95", "100.05", "99.95"),
        (Side.BUY, "99.95", "100.07", "100.10"),
        (Side.SELL, "99.97", "100.05", "99.95"),
    ],
)
def test_a_limit_at_the_touch_stands_on_the_tick_where_it_trades(
    side: Side, bid: str, ask: str, price: str
) -> None:
    assert at_touch(side, Decimal(bid), Decimal(ask), Decimal("0.05")) == Decimal(price)


def test_two_running_experiments_over_one_strategy_are_found() -> None:
    orb = Experiment("one", THREE.variants, frozenset({"orb", "x"}))
    vwap = Experiment("two", THREE.variants, frozenset({"vwap"}))
    everybody = Experiment("three", THREE.variants)
    assert first_overlap((orb, vwap)) is None
    assert first_overlap((orb, vwap, everybody)) == (orb, everybody)
    stopped = Experiment("three", THREE.variants, running=False)
    assert first_overlap((orb, vwap, stopped)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flag(101),
        lambda: Flag(-1),
        lambda: Variant("Wide"),
        lambda: Variant("wide", 0),
        lambda: Variant("wide", kind=OrderKind.STOP_LIMIT),
        lambda: Experiment("a/b", THREE.variants),
        lambda: Experiment("one", THREE.variants[:1]),
        lambda: Experiment("twice", (Variant("a"), Variant("a"))),
    ],
)
def test_what_could_not_be_told_apart_later_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]
