"""What the victims are doing when they die. Each scenario: alerts, what goes before (unharmed), and the act itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from app.brokers.fyers import client as transport
from app.domain.contract import ist_date
from tests.chaos.points import TRACER, once, unreachable
from tests.chaos.world import OPENING, RESEND_S, WEBHOOK, Sent, World
from tests.fyers_sim import nifty_ticker

LOT = 65
PLAIN: dict[str, Any] = {
    "type": 2,
    "productType": "INTRADAY",
    "limitPrice": 0,
    "stopPrice": 0,
    "disclosedQty": 0,
    "validity": "DAY",
    "offlineOrder": False,
}
LEVELS = {"stopLoss": 15.0, "takeProfit": 25.0, "legType": 1}
"""15 and 25 percent of the simulator's 100.00: distances, never levels."""

Step = Callable[[World], object]


@dataclass(frozen=True, slots=True)
class Variant:
    """How the same scenario can be told: with a key of the sender's or ours, long or short, one lot or two."""

    keyed: bool
    side: int
    lots: int

    def __str__(self) -> str:
        return f"{'keyed' if self.keyed else 'plain'}{'+' if self.side > 0 else '-'}{self.lots}"


VARIANTS = (Variant(False, 1, 1), Variant(True, 1, 1), Variant(False, -1, 2), Variant(True, -1, 1))


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    alerts: Callable[[Variant], tuple[Sent, ...]]
    before: Callable[[World, tuple[Sent, ...]], object]
    act: Callable[[World, tuple[Sent, ...]], object]
    skip: int = 0
    """How many of the first alerts had their answer before, and are not delivered again."""
    naive: bool = False
    swallowed: bool = False
    """The broker's fault may meet the alert's repeat too: then a clear "no" is the right end."""
    crash: tuple[str, str] | None = None
    """A process dies once before the victim starts: (phase and kind, beginning of the name)."""


def entry(variant: Variant, strike: int = 24500, name: str = "entry") -> Sent:
    body = _body(variant, strike, name) | {
        "action": "BUY" if variant.side > 0 else "SELL",
        "lots": variant.lots,
    }
    return Sent(name, body, _wire(variant.side, strike, variant.lots) | LEVELS)


def exit_of(variant: Variant, strike: int = 24500) -> Sent:
    body = _body(variant, strike, "exit") | {"action": "EXIT"}
    return Sent("exit", body, _wire(-variant.side, strike, variant.lots))


def _body(variant: Variant, strike: int, name: str) -> dict[str, Any]:
    key = {"idempotency_key": f"key-of-{name}"} if variant.keyed else {}
    words = {"symbol": "NIFTY", "strikeprice": strike, "optionType": "CE", "expiry": "WEEKLY"}
    return {"token": WEBHOOK, **words, **key}


def _wire(side: int, strike: int, lots: int) -> dict[str, Any]:
    symbol = nifty_ticker(ist_date(OPENING), strike)
    return {"symbol": symbol, "qty": LOT * lots, "side": side, **PLAIN}


def _one(variant: Variant) -> tuple[Sent, ...]:
    return (entry(variant),)


def _entry_and_exit(variant: Variant) -> tuple[Sent, ...]:
    return entry(variant), exit_of(variant)


def _three(variant: Variant) -> tuple[Sent, ...]:
    return tuple(entry(variant, strike, f"entry{strike}") for strike in (24400, 24500, 24600))


def _nothing(_world: World, _alerts: tuple[Sent, ...]) -> None:
    return None


def _deliver(world: World, alerts: tuple[Sent, ...]) -> None:
    world.deliver(alerts[-1])


def _on_its_own(_world: World, _alerts: tuple[Sent, ...]) -> None:
    """The connection that answered the price is of no use to the order, which makes one of its own."""
    transport.JUST_ANSWERED_SECONDS = 0.0


def _held_on_its_own(world: World, alerts: tuple[Sent, ...]) -> None:
    _held(world, alerts)
    _on_its_own(world, alerts)


def _fault(name: str) -> Callable[[World, tuple[Sent, ...]], None]:
    def before(world: World, alerts: tuple[Sent, ...]) -> None:
        for sent in alerts[:-1]:
            world.deliver(sent)
        world.door.fault(name)

    return before


def _held(world: World, alerts: tuple[Sent, ...]) -> None:
    world.deliver(alerts[0])


def _refused(world: World, alerts: tuple[Sent, ...]) -> None:
    world.refused(alerts[0])
    world.advance(RESEND_S)


def _too_many(variant: Variant) -> tuple[Sent, ...]:
    return (entry(replace(variant, lots=3)),)


def _refused_and_exit(variant: Variant) -> tuple[Sent, ...]:
    """A "no" to an exit names no side of its own: it is a row of SELL."""
    return _entry_and_exit(replace(variant, side=1))


def _half_filled(variant: Variant) -> tuple[Sent, ...]:
    """Two lots, of which one is filled when the exit comes: it cancels the rest and sells the one."""
    return entry(replace(variant, lots=2)), exit_of(replace(variant, lots=1))


def _working(world: World, alerts: tuple[Sent, ...]) -> None:
    world.door.set(fill_mode=f"partial:{LOT}")
    world.deliver(alerts[0])
    world.door.set(fill_mode="instant")


def _commit_lost(_world: World, _alerts: tuple[Sent, ...]) -> None:
    TRACER.trouble = once("after", "commit", "place_order:PlaceOrder._commit", "fail")


def _legs_lost(world: World, alerts: tuple[Sent, ...]) -> None:
    world.deliver(alerts[0])
    world.door.fault("reset_created", endpoint="PATCH /positions")


def _deliver_and_pass(world: World, alerts: tuple[Sent, ...]) -> None:
    world.deliver(alerts[-1])
    world.advance(RESEND_S)
    _passes(world, alerts)


def _refused_in_waiting(world: World, alerts: tuple[Sent, ...]) -> None:
    _exit_in_waiting(world, alerts)
    TRACER.trouble = unreachable("place ", times=1)


def _held_and_refusing(world: World, alerts: tuple[Sent, ...]) -> None:
    """The exchange will reject what the broker has accepted."""
    world.deliver(alerts[0])
    world.door.set(fill_mode="reject_async")


def _three_doubts(world: World, alerts: tuple[Sent, ...]) -> None:
    """One that is in the book, one that is not, one that never left; time for their requests to be over."""
    world.door.fault("reset_created")
    world.deliver(alerts[0])
    world.door.fault("reset")
    world.deliver(alerts[1])
    world.refused(alerts[2])
    world.advance(RESEND_S)


def _passes(world: World, _alerts: tuple[Sent, ...]) -> None:
    world.one_pass()
    world.settle()


def _recover(world: World, alerts: tuple[Sent, ...]) -> None:
    world.recover(list(alerts))


def _exit_in_waiting(world: World, alerts: tuple[Sent, ...]) -> None:
    world.door.fault("reset_created")
    world.deliver(alerts[0])
    world.deliver(alerts[1])
    world.advance(RESEND_S)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("entry", _one, _nothing, _deliver),
    Scenario("entry, on its own connection", _one, _on_its_own, _deliver),
    Scenario("entry, accepted then reset", _one, _fault("reset_created"), _deliver),
    Scenario("entry, reset before", _one, _fault("reset"), _deliver, swallowed=True),
    Scenario("entry sent again after a 503", _one, _refused, _deliver),
    Scenario("exit of nothing, after a 503", _refused_and_exit, _refused, _deliver, swallowed=True),
    Scenario("exit with legs", _entry_and_exit, _held, _deliver, 1),
    Scenario("exit, on its own connection", _entry_and_exit, _held_on_its_own, _deliver, 1),
    Scenario("exit, accepted then reset", _entry_and_exit, _fault("reset_created"), _deliver, 1),
    Scenario("reconcile three doubts", _three, _three_doubts, _passes, 3),
    Scenario("recovery, written", _one, _nothing, _recover, crash=("after write", "place ")),
    Scenario("recovery, not written", _one, _nothing, _recover, crash=("after commit", "send:last_check")),
    Scenario("recovery, no intent", _one, _nothing, _recover, crash=("after read", "quotes ")),
    Scenario("entry denied", _too_many, _nothing, _deliver, swallowed=True),
    Scenario("entry, COMMIT without an answer", _one, _commit_lost, _deliver),
    Scenario("exit, rejected", _entry_and_exit, _fault("rms_reject"), _deliver, 1, swallowed=True),
    Scenario("exit, rejected later", _entry_and_exit, _held_and_refusing, _deliver_and_pass, 1),
    Scenario("exit of a half-filled entry", _half_filled, _working, _deliver, 1),
    Scenario("exit, its legs in doubt", _entry_and_exit, _legs_lost, _deliver_and_pass, 1),
    Scenario("reconcile, a waiting exit refused", _entry_and_exit, _refused_in_waiting, _passes, 2),
    Scenario("reconcile, then a waiting exit", _entry_and_exit, _exit_in_waiting, _passes, 2),
)
NAIVE = Scenario("naive: intent after the call", _one, _nothing, _deliver, naive=True)


def by_name(name: str) -> Scenario:
    return next(s for s in (*SCENARIOS, NAIVE) if s.name == name)
