"""One alert in 64 copies at once, over three instances: one order, whoever wins; and alerts that find the broker down.

The instances are three processes with the real app on one Postgres; the broker's ledger says how many orders came.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.brokers.fyers.symbols import build_from_bytes
from app.domain.contract import ist_date
from app.service.in_flight import InFlight
from app.store.engine import Database
from tests.chaos.fork import Child, Report
from tests.chaos.gunicorn import LIMITS
from tests.chaos.judge import Verdict
from tests.chaos.points import TRACER, unreachable
from tests.chaos.scenarios import LEVELS, LOT, PLAIN
from tests.chaos.simulator import SimProcess
from tests.chaos.tally import all_rows, tally
from tests.chaos.world import ADMIN, OPENING, RESEND_S, RESENDS, WEBHOOK, Sent, SetClock, World
from tests.fyers_sim import nifty_ticker, sample_masters

INSTANCES, COPIES = 3, 64
ANSWERS = frozenset({200, 202, 409})
DEADLINE_S = 20.0
"""This is about who wins, not about how long 64 threads wait for two cores."""
IN_DOUBT_EVERY = 10
ROUND_WITHIN_S = 120
LAST_MOMENT = "place "
UNLIMITED: dict[str, Any] = {
    "rate_limit_webhook": "1000000 per minute",
    "breaker_fail_max": 10**6,
    **dict.fromkeys(("fyers_orders_per_second", "fyers_calls_per_second", "fyers_calls_per_minute"), 10**6),
    **dict.fromkeys(map(str.lower, LIMITS)),
}
STRIKES = range(24000, 25001, 50)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a crowd meets: a directory, a migrated Postgres, a clock that all processes share."""

    directory: Path
    url: str
    clock: SetClock

    def world(self, sim: SimProcess, account: str, report: Report) -> World:
        database = Database(self.url, self.clock)
        return World(
            self.directory,
            database,
            self.clock,
            sim.door,
            account,
            report,
            changes=UNLIMITED,
            deadline_s=DEADLINE_S,
        )


def alert(number: int) -> Sent:
    """Every other one has a key of its sender's. Its name stands in `strategy`, where a row shows it."""
    strike, kind = STRIKES[number % len(STRIKES)], ("CE", "PE")[number % 2]
    body = {
        "token": WEBHOOK,
        "symbol": "NIFTY",
        "strikeprice": strike,
        "optionType": kind,
        "expiry": "WEEKLY",
    }
    body |= {"action": "BUY", "lots": 1, "strategy": f"alert {number}"}
    if number % 2:
        body["idempotency_key"] = f"key {number}"
    ticker = nifty_ticker(ist_date(OPENING), strike, kind)
    return Sent(f"alert {number}", body, {"symbol": ticker, "qty": LOT, "side": 1, **PLAIN, **LEVELS})


def post(world: World, sent: Sent) -> dict[str, Any]:
    """One delivery, from any thread."""
    answer = world.app.test_client(use_cookies=False).post("/webhook", json=sent.body)
    said = answer.get_json(silent=True) or {}
    again = "Idempotent-Replayed" in answer.headers
    return {
        "status": answer.status_code,
        "order_id": said.get("order_id"),
        "code": said.get("code"),
        "again": again,
    }


def rows_of(world: World) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return all_rows(lambda path: world.client.get(path, headers=headers).get_json())


def copies(place: Place, keys: int) -> list[Verdict]:
    """`keys` alerts, each in 64 copies over three processes at once; every tenth answer of the broker is lost."""
    place.clock.open()
    sim = _broker(place, "copies")
    barrier = multiprocessing.get_context("fork").Barrier(INSTANCES)
    alerts = [alert(number) for number in range(keys)]

    def instance(report: Report, mine: int) -> None:
        # In this fork only: what a process knows of its own work would leave one copy of each to the database.
        InFlight.only = lambda *_: nullcontext()  # type: ignore[assignment,method-assign]
        world = place.world(sim, f"XCOPIES{keys}-200", report)
        barrier.wait(ROUND_WITHIN_S)  # a pass is a first one for those that had started when it began
        if mine == 0:
            world.one_pass()
        barrier.wait(ROUND_WITHIN_S)
        with ThreadPoolExecutor(COPIES) as pool:
            for number, sent in enumerate(alerts):
                if mine == 0 and number % IN_DOUBT_EVERY == 7:
                    world.door.fault("reset_created")
                barrier.wait(ROUND_WITHIN_S)
                found = list(pool.map(partial(post, world), [sent] * len(range(mine, COPIES, INSTANCES))))
                barrier.wait(ROUND_WITHIN_S)
                if number % INSTANCES == mine:
                    report({"repeat": sent.name, **post(world, sent)})
                statuses = Counter(str(a["status"]) for a in found)
                ids = sorted({a["order_id"] for a in found if a["order_id"]})
                refusals = sorted({a["code"] for a in found if a["status"] == 503})
                report({"answers": sent.name, "statuses": statuses, "ids": ids, "refusals": refusals})
        barrier.wait(ROUND_WITHIN_S)
        if mine == 0:
            world.advance(RESEND_S)
            world.one_pass()
            world.settle()
            rows = rows_of(world)
            for sent in alerts:
                if sent.keyed:
                    report({"late": sent.name, **post(world, sent)})
            for row in rows:
                report({"row": row})

    try:
        said = _together([partial(instance, mine=n) for n in range(INSTANCES)], place.directory / "log")
        lines = sim.lines()
    finally:
        sim.close()
    rows = [line["row"] for line in said if "row" in line]
    verdict = tally(alerts, rows, lines, must={a.name for a in alerts})
    answers(verdict, said, {row["strategy"]: row for row in rows})
    return one_each(verdict, keys)


def answers(verdict: Verdict, said: Iterable[dict[str, Any]], row_of: dict[str, dict[str, Any]]) -> None:
    """200, 202 or 409 to every copy; the same order in all of them; a repeat shows it too."""
    given: Counter[str] = Counter()
    for line in said:
        if "answers" in line:
            given.update(dict.fromkeys([line["answers"]], sum(line["statuses"].values())))
            wrong = {s: n for s, n in line["statuses"].items() if int(s) not in ANSWERS}
            if wrong:
                verdict.note("unaccounted", f"{line['answers']}: answered {wrong} {line['refusals']}")
            if set(line["ids"]) - {row_of.get(line["answers"], {}).get("order_id")}:
                verdict.note("unaccounted", f"{line['answers']}: answers name {line['ids']}")
        name = line.get("repeat") or line.get("late")
        if name is None:
            continue
        wanted = {200} if "late" in line else {200, 202}
        if not line["again"] or line["status"] not in wanted or line["order_id"] != row_of[name]["order_id"]:
            verdict.note("unaccounted", f"{name}: a repeat was answered {line}, its row is {row_of[name]}")
    for name, number in given.items():
        if number != COPIES:
            verdict.note("unaccounted", f"{name}: {number} answers to {COPIES} copies")


def one_each(verdict: Verdict, runs: int) -> list[Verdict]:
    """What is wrong stands in the first; the rest say how many there were."""
    return [verdict, *(Verdict() for _ in range(runs - 1))]


def broker_back(place: Place, runs: int) -> list[Verdict]:
    """The broker is gone when an alert comes; it is sent again after 5, 10 and 15 seconds, each time at three
    instances at once, and the broker is back at one of these.
    """
    place.clock.open()
    sim = _broker(place, "back")

    def work(report: Report) -> None:
        worlds = [place.world(sim, f"XBACK{runs}-200", report) for _ in range(INSTANCES)]
        worlds[0].one_pass()
        with ThreadPoolExecutor(INSTANCES) as pool:
            for number in range(runs):
                sent, down = alert(number), number % RESENDS + 1
                # Either everything fails to connect, or only the order itself does, after its intent.
                what = "" if number % 2 else LAST_MOMENT
                for attempt in range(RESENDS + 1):
                    TRACER.trouble = unreachable(what) if attempt < down else None
                    found = list(pool.map(partial(post, sent=sent), worlds))
                    report(
                        {"sent": sent.name, "down": attempt < down, "statuses": [a["status"] for a in found]}
                    )
                    worlds[0].advance(RESEND_S)
        TRACER.trouble = None
        worlds[0].one_pass()
        for row in rows_of(worlds[0]):
            report({"row": row})

    try:
        said = _together([work], place.directory / "log")
        lines = sim.lines()
    finally:
        sim.close()
    alerts = [alert(number) for number in range(runs)]
    rows = [line["row"] for line in said if "row" in line]
    verdict = tally(alerts, rows, lines, must={a.name for a in alerts})
    schedule(verdict, said)
    return one_each(verdict, runs)


def schedule(verdict: Verdict, said: Iterable[dict[str, Any]]) -> None:
    """503 or, to a copy of what is being tried, 409 while the broker is away; one answer once it is back."""
    for line in said:
        if "sent" in line:
            allowed = {503, 409} if line["down"] else {200, 409}
            if not set(line["statuses"]) <= allowed or not set(line["statuses"]) & (allowed - {409}):
                verdict.note("unaccounted", f"{line['sent']}: answered {line}")


def _broker(place: Place, name: str) -> SimProcess:
    ledger = place.directory / f"{name}.jsonl"
    return SimProcess(ledger, sample_masters(ist_date(OPENING)), OPENING)


def _together(works: Sequence[Callable[[Report], object]], log: Path) -> list[dict[str, Any]]:
    """All at once, each in a process of its own; what they reported."""
    children = [Child.start(work, log) for work in works]
    said: dict[int, tuple[list[dict[str, Any]], int]] = {}
    readers = [
        threading.Thread(target=lambda n=n, c=c: said.update({n: c.finish()})) for n, c in enumerate(children)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    failed = [lines[-1:] for lines, status in said.values() if status]
    if failed:
        raise AssertionError(f"an instance failed: {failed}")
    return [line for lines, _ in said.values() for line in lines]


def contracts(directory: Path, masters: dict[str, bytes]) -> None:
    """The index that an instance of this directory reads."""
    build_from_bytes(directory / "contracts-fyers", masters)
