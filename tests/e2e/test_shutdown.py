"""SIGTERM at random moments under load, against the real service; the broker's ledger judges.

`SHUTDOWNS=250` (make shutdown) for the full number: several services side by side then, each with a broker, a ledger and
a database of its own. Mostly they wait, for a start or an end, and each is judged as if it were alone.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.store.migrate import upgrade
from app.wiring import SystemClock
from tests.e2e.senders import Senders, env_of, settled
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROUNDS = int(os.environ.get("SHUTDOWNS", "10"))
SIDE_BY_SIDE = 4
PER_LANE = 5
"""Rounds that are worth a service more."""
PORTS = range(20_000, 32_000)
"""Below the kernel's own choice: a client's connection must not take the port of a service that is between two lives."""
EXIT_WITHIN_S = 9.0


def terminated(process: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to the end of the whole service."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(EXIT_WITHIN_S + 5)
    return time.monotonic() - began


@dataclass
class Lane:
    """One service, stopped and started again, and all that was seen of it."""

    name: str
    service: Service
    sim: FyersSim
    rounds: int
    took: list[float] = field(default_factory=list)
    said: dict[str, tuple[int, Any]] = field(default_factory=dict)
    cut: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        chance = random.Random(f"shutdown {self.name}")
        try:
            for number in range(self.rounds):
                self._round(number, chance)
            self.sim.faults.clear()
            self.service.start()
            assert self.service.wait_reconciled(20)
            later = Senders(self.service.port, f"{self.name}later-")
            numbers = itertools.count()
            # An order that never arrived is proven absent by a book that has one placed 5 s after it: so there is one.
            rows = settled(self.service, lambda: later.send(f"{later.name}{next(numbers)}"))
            self.said |= later.answers
            self.cut |= later.ends
            judge(self.sim, self.service, rows, self.said, self.cut)
        finally:
            self.service.stop()

    def _round(self, number: int, chance: random.Random) -> None:
        self.service.start()
        assert self.service.wait_reconciled(20)
        senders = Senders(self.service.port, f"{self.name}{number}")
        threads = senders.run()
        for fault in chance.choices(("slow_created", "hang_created", "reset_created"), k=2):
            self.sim.faults.next_order(fault, seconds=chance.uniform(0.2, 3))
        time.sleep(chance.uniform(0.05, 1.5))
        assert self.service.process is not None
        self.took.append(terminated(self.service.process))
        senders.stop.set()
        for thread in threads:
            thread.join(20)
        self.said |= senders.answers
        self.cut |= senders.ends
        assert senders.slowest_s < 8, senders.slowest_s


def shares(rounds: int) -> list[int]:
    """The rounds of each lane."""
    lanes = max(1, min(SIDE_BY_SIDE, rounds // PER_LANE))
    return [rounds // lanes + (n < rounds % lanes) for n in range(lanes)]


def side_by_side(work: list[Callable[[], None]]) -> None:
    """All of them to their ends; then the first one's failure, if any."""
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()


def port_of(lane: int) -> int:
    """Free, and in nobody else's share."""
    share = len(PORTS) // SIDE_BY_SIDE
    first = PORTS.start + lane * share
    for port in random.Random(os.getpid()).sample(range(first, first + share), 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def database_of(url: str, lane: int) -> str:
    """A database beside the one at `url`, for one lane."""
    here = make_url(url)
    name = f"{here.database}_{lane}"
    engine = create_engine(here, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    made = here.set(database=name).render_as_string(hide_password=False)
    upgrade(made)
    return made


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_sigterm_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    masters = paper_master(ist_date(SystemClock().now()))
    rounds = max(1, ROUNDS // 2)
    lanes: list[Lane] = []
    with contextlib.ExitStack() as stack:
        for number, share in enumerate(shares(rounds)):
            place = tmp_path / str(number)
            place.mkdir()
            ledger = place / "ledger.jsonl"
            sim = stack.enter_context(FyersSim(ledger=ledger, masters=masters, rate_limits=False))
            env = env_of(sim)
            if database == "postgres":
                env["DATABASE_URL"] = database_of(request.getfixturevalue("postgres_url"), number)
            service = Service(place, env, port=port_of(number))
            lanes.append(Lane(f"{database}{number}-", service, sim, share))
        side_by_side([lane.run for lane in lanes])
    took = [seconds for lane in lanes for seconds in lane.took]
    assert len(took) == rounds
    assert max(took) <= EXIT_WITHIN_S, took
    for lane in lanes:
        assert len(lane.said) > lane.rounds, "the load was no load"
    cut = [how for lane in lanes for how in lane.cut.values()]
    assert len(cut) <= (0 if sys.platform == "linux" else 1 + rounds // 50), cut


def judge(
    sim: FyersSim,
    service: Service,
    rows: list[dict[str, Any]],
    said: dict[str, tuple[int, Any]],
    cut: dict[str, str],
) -> None:
    """Ledger and database agree; every answer is kept; whoever got none was never taken."""
    assert {status for status, _ in said.values()} <= {200, 202, 503}, said
    tags = [line["body"]["orderTag"] for line in sim.ledger.orders()]
    assert len(tags) == len(set(tags)), "an order was sent twice"
    placed = {line["body"]["orderTag"]: line["order_id"] for line in sim.ledger.placed()}
    by_id = {row["order_id"]: row for row in rows}
    known = {row["tag"]: row["broker_order_id"] for row in rows if row["broker_order_id"] is not None}
    assert known == placed, "ledger and database differ"
    accepted = [body["order_id"] for status, body in said.values() if status == 200]
    assert len(accepted) == len(set(accepted))
    for order_id in accepted:
        assert by_id[order_id]["broker_order_id"] is not None, by_id[order_id]
    # Whose answer never came: sent again it must turn out to be new, else it had been taken and left without a word.
    again = Senders(service.port, "again")
    for key, how in cut.items():
        before = len(sim.ledger.orders())
        assert again.send(key) == "said"
        assert len(sim.ledger.orders()) == before + 1, f"{key} was taken, and its client cut off: {how}"


def test_sigterm_while_it_starts_ends_it_at_once(tmp_path: Path) -> None:
    def stopped(lane: int, rounds: int) -> None:
        chance = random.Random(f"starting {lane}")
        place = tmp_path / str(lane)
        place.mkdir()
        service = Service(place, port=port_of(lane))
        for _ in range(rounds):
            starting = threading.Thread(target=_start, args=(service,))
            service.process = None
            starting.start()
            while service.process is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 2.5))
            assert terminated(service.process) <= EXIT_WITHIN_S
            starting.join(30)
            assert not starting.is_alive()

    work = enumerate(shares(max(2, ROUNDS // 5)))
    side_by_side([partial(stopped, lane, rounds) for lane, rounds in work])


def _start(service: Service) -> None:
    try:
        service.start()
    except (AssertionError, OSError, http.client.HTTPException):
        return  # it was told to stop


def test_a_worker_that_ends_alone_leaves_the_others_their_clients(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The listener is one for all of them: what the service does to it at its own end must not happen here."""
    with Service(
        tmp_path, {"DATABASE_URL": database_of(request.getfixturevalue("postgres_url"), 0)}
    ) as service:
        assert service.process is not None
        for pid in children(service.process.pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: pid not in children(service.process.pid), within_s=15)
            assert service.get("/healthz").status == 200


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_jobs_lease_is_free_when_the_service_has_ended(tmp_path: Path) -> None:
    """Stopped in the middle of a run that hangs: the next process must not wait for the lease's end."""
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as sim:
        service = Service(tmp_path, env_of(sim))
        with service:
            sim.faults.set("GET /orders", "hang", seconds=20)
            sim.faults.next_order("reset_created")
            senders = Senders(service.port, "lease")
            assert senders.send("one") == "said"
            wait_until(lambda: holders(service) != [])
            assert service.process is not None
            assert terminated(service.process) <= EXIT_WITHIN_S
            assert holders(service) == []
            sim.release_hangs()


def holders(service: Service) -> list[str]:
    import sqlite3

    with sqlite3.connect(service.instance / "orders.sqlite3") as connection:
        found = [
            str(r[0]) for r in connection.execute("SELECT name FROM locks WHERE name LIKE 'job:reconcile%'")
        ]
    connection.close()
    return found


def wait_until(condition: Any, within_s: float = 10) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)
