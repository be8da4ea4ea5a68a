"""A process that is stopped on its way to the broker (SIGSTOP, a frozen machine) and goes on when its time is over.

Meanwhile two other instances look for what it left, and the alert comes to them again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.brokers.fyers import client as transport
from app.brokers.fyers.deadline_socket import DeadlineSocket
from tests.chaos.fork import Child, Report
from tests.chaos.judge import Verdict, judge
from tests.chaos.points import TRACER, name_of, once
from tests.chaos.run import MASTERS, Bench, Case
from tests.chaos.scenarios import Scenario, Variant, entry
from tests.chaos.simulator import SimProcess
from tests.chaos.world import OPENING, RESEND_S, Sent, World

DEADLINES_S = (1.0, 1.5, 2.0, 2.5, 2.5, 2.5)
"""Short, because it really has to pass: the transport's deadlines are the machine's. Longer at the next try, since on
a busy machine it may be over before the place is reached; then nothing was sent, and nothing is proven.
"""
PAUSE_S = 4.0
"""Twice: long enough for the others to see that its sender is late, and within the ten seconds that the reconciler
allows two clocks to differ, so that only the sender itself can say that it was late."""


@dataclass(frozen=True, slots=True)
class Stop:
    name: str
    arm: Callable[[], None]
    sends: int
    """How many order POSTs may come of it at most."""
    fill_mode: str = "instant"
    settled: bool = False
    """The others have called it NOT_PLACED before it goes on."""


def _before_the_check() -> None:
    transport.JUST_ANSWERED_SECONDS = 0.0  # the order connects anew, as after a close of the other one
    TRACER.trouble = once("after", "connect", "place ", "stop")


def _after_the_check() -> None:
    TRACER.trouble = once("after", "commit", "send:last_check", "stop")


def _in_the_write() -> None:
    """Between the transport's own look at the deadline and the system call that writes."""
    settimeout = DeadlineSocket.settimeout

    def stops(self: DeadlineSocket, seconds: float | None) -> None:
        settimeout(self, seconds)
        caller = sys._getframe(1)
        if caller.f_code.co_qualname == "Watch.write" and name_of("write").startswith("place "):
            DeadlineSocket.settimeout = settimeout  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGSTOP)

    DeadlineSocket.settimeout = stops  # type: ignore[method-assign,assignment]


STOPS = (
    Stop("stopped before the last check", _before_the_check, 0),
    Stop("stopped after the last check", _after_the_check, 0),
    Stop("stopped in the write, filled", _in_the_write, 1),
    Stop("stopped in the write, working", _in_the_write, 1, fill_mode="rest"),
    Stop("stopped in the write, for minutes", _in_the_write, 1, fill_mode="rest", settled=True),
)


def run(bench: Bench, stop: Stop, variant: Variant, database: str) -> Verdict:
    verdict = None
    for deadline_s in DEADLINES_S:
        verdict = verdict or _once(bench, stop, variant, database, deadline_s)
    if verdict is None:
        raise AssertionError(f"{stop.name} on {database}: it never came to the place")
    return verdict


def _once(bench: Bench, stop: Stop, variant: Variant, database: str, deadline_s: float) -> Verdict | None:
    """None: the process ended without having come to the place where it stops."""
    scenario = Scenario(stop.name, lambda v: (entry(v),), lambda *_: None, lambda *_: None)
    case = Case(scenario, variant, database, None)
    bench.begin(case)
    sim = SimProcess(bench.ledger, MASTERS, OPENING)
    sent = entry(variant)
    answered: list[dict[str, Any]] = []

    def victim(report: Report) -> None:
        world = bench.world(case, sim, report, deadline_s=deadline_s)
        world.one_pass()
        world.door.set(fill_mode=stop.fill_mode)
        stop.arm()
        world.deliver(sent)

    def elsewhere(report: Report, last: bool) -> None:
        world = bench.world(case, sim, report)
        world.advance(PAUSE_S)
        world.one_pass()
        world.deliver(sent)
        if stop.settled and last:
            world.settle()

    try:
        stopped = bench.start(victim)
        if not stopped.stopped():
            ended = _finished(stopped, case)
            sys.stderr.write(f"{case} did not stop: {ended}\n")
            return None
        time.sleep(deadline_s)
        for last in (False, True):
            answered += _finished(bench.start(partial(elsewhere, last=last)), case)
        os.kill(stopped.pid, signal.SIGCONT)
        late = _finished(stopped, case)
        ended = _finished(
            bench.start(lambda report: _end(bench.world(case, sim, report), sent, report)), case
        )
        lines = sim.lines()
    finally:
        sim.close()
    said = [line for line in (*answered, *late, *ended) if "answer" in line]
    rows = ended[-1]["rows"]
    verdict = judge([sent], lines, rows, said, set())
    posts = [line for line in lines if line["kind"] == "order"]
    if len(posts) > stop.sends:
        verdict.note("doubled", f"expected {stop.sends} order POSTs at most, were {len(posts)}")
    if posts:
        _after_a_late_write(verdict, stop, ended[-1], [line["kind"] for line in lines])
    elif stop.sends:
        verdict.note("lost", "expected the write to be let through: the stop came at the wrong place")
    return verdict


def _after_a_late_write(verdict: Verdict, stop: Stop, ended: dict[str, Any], kinds: list[str]) -> None:
    """Alarmed; taken back if it still worked, else adopted."""
    if not {"order:sent_late", "order:adopted"} & set(ended["events"]):
        verdict.note("unaccounted", f"written late, and nobody was told: {ended['events']}")
    if stop.fill_mode == "rest" and "cancel" not in kinds:
        verdict.note(
            "unaccounted", f"written late and working, and not taken back: {kinds}, {ended['events']}"
        )


def _end(world: World, sent: Sent, report: Report) -> None:
    world.one_pass()
    if sent.keyed:
        world.deliver(sent)
    world.settle()
    world.advance(RESEND_S)
    world.one_pass()
    rows = world.rows()
    events = [event for row in rows for event in world.story(row["order_id"])]
    report({"rows": rows, "events": events})


def _finished(child: Child, case: Case) -> list[dict[str, Any]]:
    said, status = child.finish()
    if status != 0:
        raise AssertionError(f"{case}: a process failed: {said}")
    return said
