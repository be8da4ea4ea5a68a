"""Every way in which the answer to an order can go wrong, crossed with a crash at that moment, over real gunicorn.

One or three instances on one Postgres. The crash: the simulated broker has an order POST before it and, before it does
anything else with it, kills the instance that sent it, parent and workers, by SIGKILL. Then the instance is started
again, the alert comes again, and the reconciler settles what there is. Judged by the ledger and by every state that a
row has ever had. The full matrix has the real rules of settling, in real time: five readings over ninety seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.fork import fork_each
from tests.chaos.gunicorn import alerts_of, env_of, master_date
from tests.chaos.judge import Verdict
from tests.chaos.simulator import SimProcess
from tests.chaos.tally import all_rows
from tests.chaos.ways import QUICK, WAYS, Cell, Result, Way, render
from tests.chaos.world import ADMIN, RESENDS, UNSETTLED
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim, sample_masters
from tests.simulator.api import endpoint_of
from tests.simulator.faults import ORDER_POST, Fault
from tests.simulator.wire import Reply, Request

VICTIM = "victim"
DIES_WITHIN_S = 5.0
BACK_WITHIN_S = 180.0
PAUSE_S = 0.5
POSTED_WITHIN_S = 8.0
READS_S = 3.0
"""Between other people's trades, which prove readings of the book fresh."""
SETTLED_WITHIN_S = 300.0
"""A doubt lasts 125 s at least, an order of 119 s late is there before."""
INSTANCES = (1, 3)


class KillingSim(FyersSim):
    """Kills whoever stands in the file `victim` beside the ledger when the next order POST has come in."""

    def fault_for(self, method: str, path: str) -> Fault | None:
        fault = super().fault_for(method, path)
        if (
            fault is not None and fault.name == "slow"
        ):  # which has its pause before the answer is even thought of
            self._kill(method, path)
        return fault

    def respond(self, request: Request, fault: Fault | None) -> Reply:
        self._kill(request.method, request.path)
        return super().respond(request, fault)

    def _kill(self, method: str, path: str) -> None:
        victim = self.ledger.path.with_name(VICTIM)
        if endpoint_of(method, path) == ORDER_POST and victim.exists():
            kill_all(int(victim.read_text()))
            victim.unlink(missing_ok=True)


def kill_all(parent: int) -> None:
    """SIGKILL for a process and all below it, the parent first so that it starts nobody anew; until they are dead."""
    family = [parent, *below(parent)]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + DIES_WITHIN_S
    while any(lives(pid) for pid in family):
        if time.monotonic() > give_up:
            raise AssertionError(f"still alive: {family}")
        time.sleep(0.002)


def below(parent: int) -> list[int]:
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return children + [pid for child in children for pid in below(child)]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Matrix:
    """All cells of one number of instances."""

    directory: Path
    url: str
    instances: int
    ways: Sequence[Way]
    is_quick: bool = False
    services: list[Service] = field(default_factory=list)

    def run(self) -> list[Cell]:
        self.directory.mkdir()
        pairs = [(way, crash) for way in self.ways for crash in (False, True)]
        alerts = alerts_of(len(pairs))
        cells = [Cell(way, crash, sent) for (way, crash), sent in zip(pairs, alerts, strict=True)]
        now = datetime.now(UTC)
        sim = SimProcess(self.directory / "ledger.jsonl", sample_masters(master_date()), now, KillingSim)
        env = env_of(sim, self.url, f"XMATRIX{self.instances}-200")
        if not self.is_quick:
            del env["SETTLE_MIN_READS"], env["SETTLE_MIN_SECONDS"]
        try:
            with ExitStack() as running:
                for n in range(self.instances):
                    (self.directory / f"s{n}").mkdir()
                    service = Service(self.directory / f"s{n}", env)
                    service.spawn()
                    running.callback(service.stop)
                    self.services.append(service)
                for number, cell in enumerate(cells):
                    self._one(sim, number, cell)
                self._settle(sim, cells)
        finally:
            sim.close()
        for cell in cells:
            cell.judge()
        return cells

    def _one(self, sim: SimProcess, number: int, cell: Cell) -> None:
        """Deliver, until an answer other than 503 or a death; then once more, to the next instance."""
        service, other = (self.services[n % self.instances] for n in (number, number + 1))
        until_ready(service)
        way, victim = cell.way, sim.ledger.with_name(VICTIM)
        sim.door.set(fill_mode=way.fill_mode)
        if way.drops:
            with suppress(OSError, http.client.HTTPException, ValueError):  # our own is one of them
                sim.door.call("drop_connections")
        if way.fault:
            sim.door.fault(way.fault, appear_after=way.appear_after, seconds=way.seconds)
        before = len(_orders(sim))
        if cell.crash and service.process is not None:
            victim.write_text(str(service.process.pid))
        _deliver(service, cell)
        _until_posted(
            sim, before
        )  # who died waits for nothing; what killed is done when this is in the ledger
        if cell.crash:
            cell.died = not victim.exists()
            victim.unlink(missing_ok=True)
            if cell.died and service.process is not None:
                service.process.wait(DIES_WITHIN_S)
                service.spawn()
        until_ready(other)
        _deliver(other, cell)
        sim.door.set(fill_mode="instant")
        cell.lines = _orders(sim)[before:]

    def _settle(self, sim: SimProcess, cells: Sequence[Cell]) -> None:
        """Time goes by, other people trade; then the keyed alerts come once more, and each order tells its story."""
        service = self.services[-1]
        for each in self.services:
            until_ready(each)
        began = time.monotonic()
        while any(r["state"] in {*UNSETTLED, "ACCEPTED"} for r in rows_of(service)):
            if time.monotonic() - began > SETTLED_WITHIN_S:
                break
            sim.door.call("place_by_hand", ticker="NSE:SBIN-EQ", side=1, qty=1)
            time.sleep(READS_S)
        # A verdict that came too early would be seen to be wrong only now.
        time.sleep(0 if self.is_quick else max(0.0, 125 - (time.monotonic() - began)))
        rows = rows_of(service)
        if len(rows) != len(cells):
            raise AssertionError(f"expected a row per alert, {len(cells)}, were {len(rows)}")
        by_place = {(r["symbol"], {"BUY": 1, "SELL": -1}[r["side"]]): r for r in rows}
        for cell in cells:
            if cell.sent.keyed:
                _deliver(service, cell)
            cell.row = by_place.get(cell.sent.place, {})
            if cell.row:
                path = f"/api/v1/orders/{cell.row['order_id']}"
                events = _admin(service, path)["events"]
                cell.states = [event["state"] for event in events if event["state"]]
        posts, within = len(_orders(sim)), sum(len(cell.lines) for cell in cells)
        if posts != within:
            raise AssertionError(
                f"expected {within} order POSTs, each while its alert was delivered, were {posts}"
            )


def _orders(sim: SimProcess) -> list[dict[str, Any]]:
    return [line for line in sim.lines() if line["kind"] == "order"]


def _until_posted(sim: SimProcess, before: int) -> None:
    give_up = time.monotonic() + POSTED_WITHIN_S
    while len(_orders(sim)) == before and time.monotonic() < give_up:
        time.sleep(0.02)


def _deliver(service: Service, cell: Cell) -> None:
    """As TradingView does, only quicker: again after a 503."""
    for _ in range(1 + RESENDS):
        try:
            answer = service.request("POST", "/webhook", json.dumps(cell.sent.body).encode())
        except (OSError, http.client.HTTPException):
            cell.answers.append(0)
            return
        cell.answers.append(answer.status)
        if answer.status != 503:
            return
        time.sleep(PAUSE_S)


def until_ready(service: Service) -> None:
    give_up = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < give_up:
        with suppress(OSError, http.client.HTTPException):
            answer = service.get("/readyz")
            if answer.status == 200 and answer.body["checks"]["reconciled"] == "ok":
                return
        time.sleep(0.05)
    raise AssertionError(f"the service did not come back:\n{service.log[-3000:]}")


def _admin(service: Service, path: str) -> Any:
    return service.request("GET", path, headers={"Authorization": f"Bearer {ADMIN}"}).body


def rows_of(service: Service) -> list[dict[str, Any]]:
    return all_rows(lambda path: _admin(service, path))


def run(directory: Path, urls: dict[int, str], *, is_quick: bool) -> list[Verdict]:
    """The matrix of each number of instances, side by side in forks of this process; prints the table."""
    directory.mkdir()
    ways = [way for way in WAYS if not is_quick or str(way) in QUICK]

    def work(instances: int) -> list[dict[str, Any]]:
        matrix = Matrix(directory / f"i{instances}", urls[instances], instances, ways, is_quick)
        return [asdict(cell.result()) for cell in matrix.run()]

    done = fork_each(directory / "results", INSTANCES, work)
    found = {n: [Result(**said) for said in results] for n, results in zip(INSTANCES, done, strict=True)}
    sys.stdout.write(f"sends and end of each alert, by the number of instances:\n{render(found)}\n")
    sys.stdout.flush()
    return [Verdict(**result.verdict) for results in found.values() for result in results]
