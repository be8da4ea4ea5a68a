"""Each dependency, each way of being away, before the start and while it runs: cell by cell,
and as /readyz, /readyz/orders and /metrics tell it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.fault_proxy import Fault, FaultProxy
from tests.e2e.senders import SECRETS, env_of
from tests.e2e.service import Answer, Service
from tests.e2e.test_metrics import total
from tests.fyers_sim import FyersSim
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ANSWERED_WITHIN_S = 2.4
TOLD_WITHIN_S = 13.0
"""/readyz/orders asks the broker once in 10 s."""
HEALED_WITHIN_S = 25.0
PROBE_WITHIN_S = 1.6
IN_A_ROW = 6
FAULTS = (Fault.DOWN, Fault.SLOW, Fault.RESET, Fault.BLACK_HOLE, Fault.FLAPPING)


@dataclass(frozen=True)
class Row:
    """What holds while a dependency is away. `told`: the check that says so."""

    alert: frozenset[int]
    code: str
    orders: int
    readyz: int
    readyz_orders: int
    told: frozenset[str]
    figures: Callable[[str], bool]
    """Whether a page of /metrics shows that it is away. None of them may say so of a service that is well."""


def without_database(page: str) -> bool:
    """It says so, and gives no old count for a true one."""
    return total(page, "database_up") == 0 and "orders_in_doubt " not in page and "database_up " in page


def without_redis(page: str) -> bool:
    """What instances share is not known then; what this one has left is."""
    return "broker_budget_left_shared{" not in page and "broker_budget_left{" in page


def without_broker(page: str) -> bool:
    return any(total(page, "breaker_state", breaker=name) > 0 for name in ("orders", "reads"))


CLOSED = frozenset({503})
DATABASE = Row(CLOSED, "store_unavailable", 0, 503, 503, frozenset({"database"}), without_database)
REDIS = Row(frozenset({200}), "", 1, 200, 200, frozenset({"redis"}), without_redis)
BROKER = Row(CLOSED, "", 0, 200, 503, frozenset({"broker", "breaker"}), without_broker)
TABLE: dict[str, Row] = {"database": DATABASE, "redis": REDIS, "broker": BROKER}
"""Flapping is each of its two states in turn: every answer is that of one of them, and nothing is lost or doubled."""


@dataclass
class Site:
    """The service, its broker, and the proxy before one of its dependencies."""

    service: Service
    sim: FyersSim
    proxy: FaultProxy
    dependency: str
    count: int = 0

    def alert(self, key: str) -> tuple[Answer, float]:
        began = time.monotonic()
        answer = self.service.alert(strikeprice=24500, lots=1, idempotency_key=key)
        return answer, time.monotonic() - began

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        began = time.monotonic()
        answer = self.service.get(path)
        assert time.monotonic() - began < PROBE_WITHIN_S, path
        return answer.status, answer.body

    def metrics(self) -> str:
        """The page, whatever is away: it must come, and soon."""
        began = time.monotonic()
        authorization = {"Authorization": f"Bearer {SECRETS['ADMIN_TOKEN']}"}
        answer = self.service.request("GET", "/metrics", headers=authorization)
        assert time.monotonic() - began < ANSWERED_WITHIN_S
        assert answer.status == 200
        return str(answer.body.decode())

    def key(self) -> str:
        self.count += 1
        return f"cell-{self.count}"

    def placed(self) -> int:
        return len(self.sim.ledger.placed())


class Known(Service):
    """Its tokens are given, not made."""

    def token(self, name: str) -> str:
        return SECRETS["WEBHOOK_SECRET_TOKEN" if name == "webhook_token" else "ADMIN_TOKEN"]


@contextmanager
def site(tmp_path: Path, dependency: str, postgres_url: Callable[[], str]) -> Iterator[Site]:
    """Not started yet."""
    masters = paper_master(ist_date(SystemClock().now()))
    with ExitStack() as stack:
        sim = stack.enter_context(
            FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False)
        )
        env = env_of(sim) | {"BREAKER_FAIL_MAX": "3", "BREAKER_RESET_SECONDS": "2"}
        if dependency == "database":
            url = make_url(postgres_url())
            proxy = stack.enter_context(before_postgres(url))
            url = url.set(host="127.0.0.1", port=proxy.port, query={})
            env["DATABASE_URL"] = url.render_as_string(hide_password=False)
        elif dependency == "redis":
            server = stack.enter_context(RedisServer(tmp_path))
            proxy = stack.enter_context(FaultProxy(server.port))
            env["REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        else:
            proxy = stack.enter_context(FaultProxy(sim.server.address[1]))
            env |= {
                name: env[name].replace(str(sim.server.address[1]), str(proxy.port))
                for name in ("FYERS_API_URL", "FYERS_DATA_URL")
            }
        service = Known(tmp_path, env)
        stack.callback(service.stop)
        yield Site(service, sim, proxy, dependency)


def before_postgres(url: URL) -> FaultProxy:
    """A test's server listens on a Unix socket."""
    place = url.query.get("host")
    return FaultProxy(f"{place}/.s.PGSQL.{url.port or 5432}" if place else url.port or 5432)


def until(found: Callable[[], bool], within_s: float) -> bool:
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        if found():
            return True
        time.sleep(0.1)
    return found()


def told(place: Site, row: Row) -> bool:
    checks = place.probe("/readyz/orders")[1]["checks"]
    return any(checks.get(name, "ok") != "ok" for name in row.told)


def figures_tell(place: Site, row: Row) -> bool:
    """At this page of the metrics. A request in between makes a broker that is away be noticed by its breaker."""
    if row is BROKER and not row.figures(place.metrics()):
        place.alert(place.key())
    return row.figures(place.metrics())


def counted(place: Site) -> float:
    """Orders accepted, as the cluster's own figures have them."""
    page = place.metrics()
    return sum(
        total(page, "orders_today", state=state) for state in ("ACCEPTED", "PARTIALLY_FILLED", "FILLED")
    )


def steady(place: Site, path: str, status: int) -> None:
    """Each worker has its own word, and keeps it for a moment: all of them come to say this."""
    row = 0

    def holds() -> bool:
        nonlocal row
        row = row + 1 if place.probe(path)[0] == status else 0
        return row >= IN_A_ROW

    assert until(holds, TOLD_WITHIN_S), place.probe(path)


def away(place: Site, row: Row, fault: Fault, *, at_start: bool) -> str:
    """The cell's judgement; gives the alert's key."""
    key, before = place.key(), place.placed()
    answer, took = place.alert(key)
    assert took < ANSWERED_WITHIN_S, f"{took:.1f} s: {answer.body}"
    closed = row.alert
    if fault is Fault.FLAPPING:
        # At the broker an answer may be lost in between.
        assert answer.status in closed | {200} | ({202} if row is BROKER else set()), answer.body
    else:
        assert answer.status in closed, answer.body
        assert place.placed() - before == row.orders
        if row.code and not at_start:
            assert answer.body["code"] == row.code, answer.body
        steady(place, "/readyz/orders", row.readyz_orders)
        steady(place, "/readyz", row.readyz)
        assert until(lambda: told(place, row), TOLD_WITHIN_S)
        assert until(lambda: figures_tell(place, row), TOLD_WITHIN_S), place.metrics()
        if row is BROKER:
            calls = total(place.metrics(), "broker_calls_total", outcome="failed")
            assert calls > 0, "no call that failed was counted"
        if row.orders:
            assert until(lambda: counted(place) == place.placed(), TOLD_WITHIN_S)
    for path in ("/readyz", "/readyz/orders"):
        assert place.probe(path)[0] in (200, 503)
    assert place.service.get("/healthz").status == 200
    return key


def lost_on_the_way(place: Site, key: str) -> bool:
    """Whether the alert's order is in doubt, and the broker's own ledger has never had it."""
    answer, _ = place.alert(key)
    if answer.status != 202:
        return False
    tag = place.service.get(f"/api/v1/orders/{answer.body['order_id']}").body["tag"]
    return tag not in [line["body"].get("orderTag") for line in place.sim.ledger.orders()]


def healed(place: Site, key: str) -> None:
    """It recovers by itself, and the same alert ends as one order."""
    place.proxy.set(Fault.PASS)
    if lost_on_the_way(place, key):
        # Cut between our write and the broker: a doubt that only time settles. It is never sent again, and the next
        # alert is none of its business.
        assert place.alert(key)[0].status == 202
        key = place.key()
    assert until(lambda: place.alert(key)[0].status == 200, HEALED_WITHIN_S), place.alert(key)[0].body
    steady(place, "/readyz/orders", 200)
    row = TABLE[place.dependency]
    assert until(lambda: not row.figures(place.metrics()), TOLD_WITHIN_S), place.metrics()
    assert until(lambda: total(place.metrics(), "database_up") == 1, TOLD_WITHIN_S)
    tags = [line["body"]["orderTag"] for line in place.sim.ledger.orders()]
    assert len(tags) == len(set(tags)), "an order was sent twice"
    answer, _ = place.alert(key)
    assert answer.status == 200, answer.body
    shown = place.service.get(f"/api/v1/orders/{answer.body['order_id']}").body
    ours = [line for line in place.sim.ledger.placed() if line["body"]["orderTag"] == shown["tag"]]
    assert [line["order_id"] for line in ours] == [shown["broker_order_id"]]


@pytest.mark.parametrize("dependency", TABLE)
def test_while_it_runs(tmp_path: Path, dependency: str, request: pytest.FixtureRequest) -> None:
    with site(tmp_path, dependency, lambda: request.getfixturevalue("postgres_url")) as place:
        place.service.start()
        assert place.service.wait_reconciled(20)
        for fault in FAULTS:
            assert until(lambda: place.alert(place.key())[0].status == 200, HEALED_WITHIN_S)
            place.proxy.set(fault)
            healed(place, away(place, TABLE[dependency], fault, at_start=False))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dependency", TABLE)
def test_from_the_start(
    tmp_path: Path, dependency: str, fault: Fault, request: pytest.FixtureRequest
) -> None:
    with site(tmp_path, dependency, lambda: request.getfixturevalue("postgres_url")) as place:
        place.proxy.set(fault)
        place.service.spawn()
        assert until(lambda: listens(place.service), 60), place.service.log[-2000:]
        if dependency == "redis":
            assert place.service.wait_reconciled(20)
        healed(place, away(place, TABLE[dependency], fault, at_start=True))


def listens(service: Service) -> bool:
    try:
        return service.get("/healthz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.RESET, Fault.BLACK_HOLE, Fault.SLOW])
def test_an_answer_that_is_lost_is_in_doubt_and_settled(tmp_path: Path, fault: Fault) -> None:
    """Fyers, answer lost: 202, one order in the ledger, reconciled; nothing is sent again."""
    with site(tmp_path, "broker", lambda: "") as place:
        place.service.start()
        assert place.service.wait_reconciled(20)
        place.proxy.spoil, place.proxy.spoil_by = b"POST /api/v3/orders", fault
        answer, took = place.alert("lost")
        assert (answer.status, answer.body["status"]) == (202, "in_doubt"), answer.body
        assert took < ANSWERED_WITHIN_S
        healed(place, "lost")
        assert place.placed() == len(place.sim.ledger.orders()) == 1
