"""64 copies of one alert over three real services on one Postgres, two workers each."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.crowd import COPIES, INSTANCES, answers, one_each
from tests.chaos.gunicorn import alerts_of, env_of, master_date
from tests.chaos.judge import Verdict
from tests.chaos.simulator import SimProcess
from tests.chaos.tally import all_rows, tally
from tests.chaos.world import ADMIN, RESENDS
from tests.e2e.service import Service
from tests.fyers_sim import sample_masters


def run(directory: Path, url: str, keys: int) -> list[Verdict]:
    """The same through three real services, two workers each, over HTTP."""
    directory.mkdir()
    sim = SimProcess(directory / "ledger.jsonl", sample_masters(master_date()), datetime.now(UTC))
    env = env_of(sim, url, "XSERVICES-200")
    alerts = [replace(sent, name=f"alert {n}") for n, sent in enumerate(alerts_of(keys))]
    alerts = [replace(sent, body={**sent.body, "strategy": sent.name}) for sent in alerts]
    said: list[dict[str, Any]] = []
    verdict = Verdict()
    try:
        with ExitStack() as running:
            found = []
            for n in range(INSTANCES):
                (directory / f"s{n}").mkdir()
                found.append(running.enter_context(Service(directory / f"s{n}", env)))
            with ThreadPoolExecutor(COPIES) as pool:
                for sent in alerts:
                    ask = partial(_over_http, json.dumps(sent.body).encode())
                    given = list(pool.map(ask, itertools.islice(itertools.cycle(found), COPIES)))
                    statuses = Counter(str(a["status"]) for a in given)
                    ids = sorted({a["order_id"] for a in given if a["order_id"]})
                    said.append({"answers": sent.name, "statuses": statuses, "ids": ids})
                    said.append({"repeat": sent.name, **_over_http(json.dumps(sent.body).encode(), found[0])})
            headers = {"Authorization": f"Bearer {ADMIN}"}
            rows = all_rows(lambda path: found[1].request("GET", path, headers=headers).body)
        verdict = tally(alerts, rows, sim.lines(), must={a.name for a in alerts})
        answers(verdict, said, {row["strategy"]: row for row in rows})
    finally:
        sim.close()
    return one_each(verdict, keys)


def _over_http(body: bytes, service: Service) -> dict[str, Any]:
    """Sent again after a 503, as TradingView does: 64 at once have two seconds each, on whatever machine this is."""
    for _ in range(1 + RESENDS):
        answer = service.request("POST", "/webhook", body)
        if answer.status != 503:
            break
    again = "idempotent-replayed" in answer.headers
    return {"status": answer.status, "order_id": answer.body.get("order_id"), "again": again}
