"""Dependencies that a running service does without: the token's bucket and the symbol master's server. Each way of being
away, while it runs and from the start: cell by cell, and as /readyz/orders tells it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.fault_proxy import Fault, FaultProxy
from tests.e2e.senders import env_of
from tests.e2e.service import Answer, Service
from tests.e2e.test_dependencies import ANSWERED_WITHIN_S, FAULTS, Known, until
from tests.e2e.test_login import live, log_in_by_browser
from tests.fyers_sim import FyersSim

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TOLD_WITHIN_S = 20.0
"""A word about the bucket is kept for 15 s."""
SEEN_WITHIN_S = 35.0
"""Another instance's, or a healed bucket's token."""


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as made:
        yield made


def alert(service: Service, key: str) -> Answer:
    began = time.monotonic()
    answer = service.alert(strikeprice=24500, lots=1, idempotency_key=key)
    assert time.monotonic() - began < ANSWERED_WITHIN_S, answer.body
    return answer


def orders_check(service: Service, name: str) -> Callable[[], bool]:
    return lambda: service.get("/readyz/orders").body["checks"].get(name, "ok") != "ok"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tokens_bucket(sim: FyersSim, tmp_path: Path, fault: Fault) -> None:
    """The cached token goes on until it ends; a start without any answers 503, and recovers by itself."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.gcs_layer import GcsLayer

    key = Fernet.generate_key().decode()
    with GcsLayer() as gcs, ExitStack() as stack:
        port = int(gcs.url.rsplit(":", 1)[1])
        proxy = stack.enter_context(FaultProxy(port))
        bucket = {"GCS_BUCKET_NAME": gcs.bucket, "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.port}"}
        service = stack.enter_context(Service(tmp_path, live(sim, key, TOKEN_STORE="gcs", **bucket)))
        log_in_by_browser(sim, service)
        assert service.wait_reconciled(25)
        assert alert(service, "before").status == 200

        proxy.set(fault)
        assert alert(service, "while it runs").status == 200
        if fault is not Fault.FLAPPING:
            assert until(orders_check(service, "token_store"), TOLD_WITHIN_S), "nobody says that it is away"
        assert service.get("/readyz/orders").status == 200, "the token in hand is good"
        assert alert(service, "after a while").status == 200

        service.stop()
        service.start()
        if fault is not Fault.FLAPPING:
            answer = alert(service, "from the start")
            assert answer.status == 503, answer.body
            assert service.get("/readyz/orders").status == 503
            assert service.get("/readyz").status == 200
            assert len(sim.ledger.orders()) == 3

        proxy.set(Fault.PASS)
        assert until(lambda: alert(service, "from the start").status == 200, SEEN_WITHIN_S)
        assert until(lambda: service.get("/readyz/orders").status == 200, SEEN_WITHIN_S)
        assert len(sim.ledger.orders()) == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_the_symbol_masters_server(sim: FyersSim, tmp_path: Path, fault: Fault) -> None:
    """The last good files go on, also over a restart; without any, entries wait and nothing else does."""
    at = str(sim.server.address[1])
    with FaultProxy(sim.server.address[1]) as proxy, ExitStack() as stack:
        env = env_of(sim)
        env["SYMBOL_MASTER_URL"] = env["SYMBOL_MASTER_URL"].replace(at, str(proxy.port))
        service = Known(tmp_path, env)
        stack.callback(service.stop)
        proxy.set(fault)
        service.spawn()
        assert until(lambda: answers(service, "/healthz"), 60), service.log[-2000:]
        if fault is not Fault.FLAPPING:
            answer = alert(service, "one")
            assert (answer.status, sim.ledger.orders()) == (503, []), answer.body
            assert service.get("/readyz").status == 503
            assert service.get("/readyz").body["checks"]["index"] != "ok"

        proxy.set(Fault.PASS)
        headers = {"Authorization": f"Bearer {service.token('admin_token')}"}

        def refreshed() -> bool:
            done = service.request("POST", "/internal/jobs/refresh-master", headers=headers)
            return done.status == 200 and answers(service, "/readyz/orders")

        assert until(refreshed, 120), service.get("/readyz/orders").body
        assert alert(service, "one").status == 200

        proxy.set(fault)
        assert alert(service, "two").status == 200
        service.stop()
        service.start()  # its own refresh, and the job's first, meet the fault
        assert service.wait_reconciled(20)
        assert alert(service, "three").status == 200
        checks = service.get("/readyz/orders")
        assert (checks.status, checks.body["checks"]["master"]) == (200, "ok")
        assert checks.body["master"]["age_seconds"] >= 0
        assert len(sim.ledger.orders()) == 3


def answers(service: Service, path: str) -> bool:
    try:
        return service.get(path).status == 200
    except OSError:
        return False
