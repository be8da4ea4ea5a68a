"""The kill switch over three processes while a crowd of alerts comes in; the broker's ledger says what went out when."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.chaos.world import World
from tests.limits import size
from tests.limits.fleet import HAND, INSTANCES, Rough, admin, entry, fleet, pass_on, post, ready

pytestmark = pytest.mark.slow
SWITCHES, FLATTENS = size(10, 1), size(100, 2)
"""Runs of each."""
A_DAY = 10
"""Flattens of one account, one after the other: each begins when the one before has ended flat."""
THREADS = 3
BEFORE, AFTER = 40, 30
"""Orders that have gone out before it is used; alerts that come after it."""
WITHIN_S = 1.0
TURNS = 15
GIVE_UP_S = 60.0
FORK = multiprocessing.get_context("fork")
WHY = {"reason": "enough of it"}
STRIKES = (24300, 24400, 24500, 24600)
HELD, WORKING = 24000, 24100
"""Strikes of what is held, and of what still works, when the switch is used."""
WIDE: dict[str, Any] = {"webhook_max_qty": 50}


class Doubtful(Rough):
    """Of nine orders one's answer is lost, of nine another is lost whole, and of nine one is cancelled; exits too."""

    EVERY = 9
    FAULTS: ClassVar[dict[int, str]] = {4: "reset_created", 8: "reset"}
    CANCELS: ClassVar[frozenset[int]] = frozenset({6})


class Smooth(Rough):
    """What is asked of it it does: an exit that waits for a doubt would say nothing about the switch."""

    FAULTS: ClassVar[dict[int, str]] = {}
    CANCELS: ClassVar[frozenset[int]] = frozenset()


class Load:
    """Alerts in all processes, from several threads each, until `over`."""

    def __init__(self) -> None:
        self.over = FORK.Event()
        self.ready = FORK.Barrier(INSTANCES)
        self.sent, self.tried, self.denied = (FORK.Value("i", 0) for _ in range(3))

    def run(self, world: World, mine: int, then: Callable[[World], None]) -> None:
        """`then` in the first process, beside its own alerts."""
        ready(world)
        if mine == 0:
            self.over.clear()
            self.sent.value = self.tried.value = self.denied.value = 0
        self.ready.wait(GIVE_UP_S)
        threads = [
            threading.Thread(target=self._fire, args=(world, mine * THREADS + n)) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            if mine == 0:
                then(world)
        finally:
            if mine == 0:
                self.over.set()
            for thread in threads:
                thread.join()
        self.ready.wait(GIVE_UP_S)

    def _fire(self, world: World, number: int) -> None:
        while not self.over.is_set():
            number += INSTANCES * THREADS
            strike = STRIKES[number % len(STRIKES)]
            status, said = post(world, entry(number, strikeprice=strike, lots=1 + number % 2))
            with self.sent.get_lock(), self.denied.get_lock(), self.tried.get_lock():
                self.tried.value += 1
                self.sent.value += status in (200, 202)
                self.denied.value += said.get("code") == "trading_state"

    def until(self, what: Any, least: int) -> None:
        give_up = threading.Event()
        for _ in range(int(GIVE_UP_S / 0.01)):
            if what.value >= least:
                return
            give_up.wait(0.01)
        raise AssertionError(f"expected {least}, were {what.value} of {self.tried.value}")


def entries_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "order" and line["body"]["side"] == 1]


@pytest.mark.parametrize("state", ["HALTED", "REDUCING"])
def test_a_second_after_it_no_process_sends_an_entry(
    tmp_path: Path, postgres_url: str, state: str, record_property: Any
) -> None:
    took = [switched(tmp_path, postgres_url, state, number) for number in range(SWITCHES)]
    record_property(
        "measured", f"{state}, {len(took)} runs: last entry at most {max(took) * 1000:.0f} ms after the call"
    )
    assert max(took) <= WITHIN_S


def switched(directory: Path, url: str, state: str, number: int) -> float:
    """Seconds from the call to the last entry at the broker."""
    load = Load()

    def work(world: World, mine: int) -> None:
        def switch(world: World) -> None:
            load.until(load.sent, BEFORE)
            called = world.door.now()
            admin(world, "/api/v1/state", {"state": state, **WHY})
            load.until(load.denied, load.denied.value + AFTER)
            world.report({"called": called.isoformat()})

        if mine == 0:
            ready(world)
            assert post(world, entry(-1, strikeprice=HELD))[0] == 200
            world.door.set(fill_mode="rest")
            assert post(world, entry(-2, strikeprice=WORKING))[0] == 200
            world.door.set(fill_mode="instant")
        load.run(world, mine, switch)
        if mine == 1:
            out = [
                post(world, entry(-3, action="EXIT", lots=None, strikeprice=s))[0] for s in (HELD, WORKING)
            ]
            world.report({"exit": out[0]})

    with fleet(directory, url, Smooth, number=number, **WIDE) as ships:
        said = {k: v for line in ships.run(work) for k, v in line.items()}
        lines = ships.sim.lines()
    assert said["exit"] == (200 if state == "REDUCING" else 422)
    sold = [line for line in lines if line["kind"] == "order" and line["body"]["side"] == -1]
    cancelled = [line for line in lines if line["kind"] == "cancel"]
    assert len(sold) == len(cancelled) == (1 if state == "REDUCING" else 0)
    last = max(datetime.fromisoformat(line["at"]) for line in entries_of(lines))
    return (last - datetime.fromisoformat(said["called"])).total_seconds()


def test_flatten_under_load_ends_flat_and_is_never_short(
    tmp_path: Path, postgres_url: str, record_property: Any
) -> None:
    days = [flattened(tmp_path, postgres_url, number) for number in range(-(-FLATTENS // A_DAY))]
    runs, entries, in_doubt = (sum(numbers) for numbers in zip(*days, strict=True))
    assert runs >= FLATTENS
    record_property(
        "measured", f"{runs} runs: {entries} entries, {in_doubt} orders in doubt, all flat, 0 short"
    )


def flattened(directory: Path, url: str, number: int) -> tuple[int, int, int]:
    """Runs that ended flat, their entries, and their orders that were in doubt."""
    load, times = Load(), min(A_DAY, FLATTENS)

    def work(world: World, mine: int) -> None:
        def flatten(world: World) -> None:
            load.until(load.sent, BEFORE // 2 + number % 10)
            admin(world, "/api/v1/kill", {"do": "flatten", **WHY})
            load.until(load.denied, AFTER)

        for _ in range(times):
            load.run(world, mine, flatten)
            if mine == 0:
                turns, done = 0, {"problems": ["never looked"], "exits": []}
                while turns < TURNS and (done["problems"] or done["exits"] or unsettled(world)):
                    turns += 1
                    pass_on(world)
                    done = admin(world, "/api/v1/kill", {"do": "flatten", **WHY})
                net = {p["symbol"]: p["netQty"] for p in world.door.call("positions") if p["symbol"] != HAND}
                world.report({"problems": done["problems"], "net": net})
                admin(world, "/api/v1/state", {"state": "ACTIVE", **WHY})
            load.ready.wait(GIVE_UP_S)

    with fleet(directory, url, Doubtful, number=number, **WIDE) as ships:
        said = [line for line in ships.run(work) if "problems" in line]
        lines = ships.sim.lines()
    lost = [line for line in lines if line["kind"] == "order" and line["fault"]]
    assert len(said) == times
    assert [line["problems"] for line in said] == [[]] * times
    assert {net for line in said for net in line["net"].values()} == {0}, said
    assert [line for line in lines if line["kind"] == "short"] == []
    assert len(lost) >= times, "hardly anything was in doubt"
    return times, len(entries_of(lines)), len(lost)


def unsettled(world: World) -> bool:
    with world.ports.store.read() as tx:
        return bool(tx.open_orders(world.ports.scope))
