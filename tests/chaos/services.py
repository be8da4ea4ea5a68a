"""64 copies of one alert over three real services on one Postgres, two workers each; and alerts that find no broker."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.crowd import COPIES, IN_DOUBT_EVERY, INSTANCES, answers, one_each, schedule
from tests.chaos.gunicorn import BACK_WITHIN_S, alerts_of, env_of, master_date
from tests.chaos.judge import Verdict
from tests.chaos.matrix import until_ready
from tests.chaos.outage import settled
from tests.chaos.simulator import SimProcess
from tests.chaos.tally import tally
from tests.chaos.world import RESEND_S, RESENDS, Sent
from tests.e2e.fault_proxy import Fault, FaultProxy
from tests.e2e.service import Service
from tests.fyers_sim import sample_masters

CONTRACTS = 84


@dataclass(frozen=True, slots=True)
class Three:
    """What both parts stand on."""

    sim: SimProcess
    services: Sequence[Service]


def alerts(number: int) -> list[Sent]:
    """So many entries, told apart by their `strategy`; every other one has a key of its sender's."""
    patterns, found = alerts_of(min(number, CONTRACTS)), []
    for n in range(number):
        like = patterns[n % len(patterns)]
        name = f"alert {n}"
        body = {**like.body, "strategy": name}
        if like.keyed:
            body["idempotency_key"] = name
        found.append(Sent(name, body, like.means))
    return found


@contextmanager
def three(
    directory: Path, url: str, account: str, change: Callable[[dict[str, str]], object]
) -> Iterator[Three]:
    """Three services of two workers on one Postgres and one simulated broker."""
    directory.mkdir()
    sim = SimProcess(directory / "ledger.jsonl", sample_masters(master_date()), datetime.now(UTC))
    env = env_of(sim, url, account)
    change(env)
    try:
        with ExitStack() as running:
            found = []
            for n in range(INSTANCES):
                (directory / f"s{n}").mkdir()
                service = Service(directory / f"s{n}", env)
                service.spawn()
                running.callback(service.stop)
                found.append(service)
            for service in found:
                until_ready(service)
                assert service.wait_reconciled(BACK_WITHIN_S)  # both workers: none of the copies comes again
            yield Three(sim, found)
    finally:
        sim.close()


def run(directory: Path, url: str, keys: int) -> list[Verdict]:
    """`keys` alerts, each in 64 copies over HTTP at once, none of them sent again; every tenth answer of the broker
    is lost.
    """
    sent_alerts, said = alerts(keys), []
    with three(directory, url, "XSERVICES-200", lambda _: None) as place, ThreadPoolExecutor(COPIES) as pool:
        for number, sent in enumerate(sent_alerts):
            if number % IN_DOUBT_EVERY == 7:
                place.sim.door.fault("reset_created")
            ask = partial(_over_http, json.dumps(sent.body).encode())
            given = list(pool.map(ask, itertools.islice(itertools.cycle(place.services), COPIES)))
            statuses = Counter(str(a["status"]) for a in given)
            ids = sorted({a["order_id"] for a in given if a["order_id"]})
            refusals = sorted({a["code"] for a in given if a["status"] == 503})
            said.append({"answers": sent.name, "statuses": statuses, "ids": ids, "refusals": refusals})
            said.append({"repeat": sent.name, **ask(place.services[number % INSTANCES])})
        rows = settled(place.services[1], place.sim)
        said += [
            {"late": sent.name, **_over_http(json.dumps(sent.body).encode(), place.services[n % INSTANCES])}
            for n, sent in enumerate(sent_alerts)
            if sent.keyed
        ]
        lines = place.sim.lines()
    verdict = tally(sent_alerts, rows, lines, must={a.name for a in sent_alerts})
    answers(verdict, said, {row["strategy"]: row for row in rows})
    return one_each(verdict, keys)


def _over_http(body: bytes, service: Service) -> dict[str, Any]:
    answer = service.request("POST", "/webhook", body)
    again = "idempotent-replayed" in answer.headers
    found = {"status": answer.status, "order_id": answer.body.get("order_id"), "again": again}
    return found if answer.status != 503 else {**found, "code": answer.body.get("code")}


def _until_refused(port: int) -> None:
    """What is taken and then dropped is in doubt, and no 503."""
    with suppress(ConnectionError):
        while True:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            time.sleep(0.02)


def broker_back(directory: Path, url: str, number: int) -> list[Verdict]:
    """Alerts find the broker gone, and come again 5, 10 and 15 real seconds later, each time at all three at once. Of
    three alerts one finds it back at each of these.
    """
    sent_alerts, said = alerts(number), []
    proxies: list[FaultProxy] = []

    def through(env: dict[str, str]) -> None:
        port = int(env["FYERS_API_URL"].split(":")[2].split("/")[0])
        proxies.append(FaultProxy(port))
        proxies[0].__enter__()
        env["FYERS_API_URL"] = f"http://127.0.0.1:{proxies[0].port}/api/v3"

    try:
        with three(directory, url, "XRETURN-200", through) as place, ThreadPoolExecutor(INSTANCES) as pool:
            for down in range(1, RESENDS + 1):
                mine = sent_alerts[down - 1 :: RESENDS]
                proxies[0].set(Fault.DOWN)
                _until_refused(proxies[0].port)
                for attempt in range(RESENDS + 1):
                    if attempt:
                        time.sleep(RESEND_S)
                    if attempt == down:
                        proxies[0].set(Fault.PASS)
                    for sent in mine:
                        found = list(
                            pool.map(partial(_over_http, json.dumps(sent.body).encode()), place.services)
                        )
                        statuses = [a["status"] for a in found]
                        said.append({"sent": sent.name, "down": attempt < down, "statuses": statuses})
            rows, lines = settled(place.services[0], place.sim), place.sim.lines()
    finally:
        for proxy in proxies:
            proxy.__exit__()
    verdict = tally(sent_alerts, rows, lines, must={a.name for a in sent_alerts})
    schedule(verdict, said)
    return one_each(verdict, number)
