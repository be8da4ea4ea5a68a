"""Checks that are bounded, kept, and asked by one at a time; and what a stranger and the operator are shown."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.domain.order import Mode
from app.domain.risk import TradingState
from app.service.health import (
    BROKER_KEEP_S,
    KEEP_BAD_S,
    KEEP_S,
    OK,
    SLOW,
    Check,
    Checks,
    Need,
    Parts,
    Words,
    broker,
)
from app.service.ready import Unready
from app.telemetry.broker import ObservedBroker
from app.web import ops
from tests.builders import SCOPE
from tests.fake_clients import a_client
from tests.fakes import FakeClock
from tests.guard_desk import GuardDesk
from tests.service.desk import TradingDesk
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk


class Asked:
    """A dependency that counts, and may hang until it is released."""

    def __init__(self, word: str = OK) -> None:
        self.word, self.times = word, 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self) -> Words:
        self.times += 1
        self.free.wait(5)
        return {"it": self.word}


def of(asked: Asked, clock: FakeClock, need: Need = Need.TRAFFIC, **changes: Any) -> Checks:
    return Checks((Check({"it": need}, asked, **changes),), clock.monotonic)


def test_a_good_word_is_kept_longer_than_a_bad_one() -> None:
    clock, asked = FakeClock(), Asked()
    checks = of(asked, clock)
    assert checks(for_orders=False).traffic
    clock.advance(KEEP_S - 0.1)
    asked.word = "gone"
    assert checks(for_orders=False).words == {"it": OK}
    assert asked.times == 1
    clock.advance(0.2)
    assert not checks(for_orders=False).traffic
    asked.word = OK
    clock.advance(KEEP_BAD_S + 0.1)
    assert checks(for_orders=False).traffic
    assert asked.times == 3


def test_what_hangs_reads_slow_and_is_asked_by_one_thread_only() -> None:
    clock, asked = FakeClock(), Asked()
    asked.free.clear()
    checks = of(asked, clock, timeout_s=0.01)
    for _ in range(3):
        assert checks(for_orders=False).words == {"it": SLOW}
        clock.advance(KEEP_S + 1)
    assert asked.times == 1
    before = threading.active_count()
    asked.free.set()
    for thread in threading.enumerate():
        if thread.name == "health":
            thread.join(5)
    assert threading.active_count() < before
    clock.advance(KEEP_S + 1)
    assert of(asked, clock)(for_orders=False).words == {"it": OK}


def test_a_late_good_word_is_slow_and_a_late_bad_one_is_itself() -> None:
    for word, shown in ((OK, SLOW), ("refused", "refused")):
        clock, asked = FakeClock(), Asked(word)
        asked.free.clear()
        checks = of(asked, clock, timeout_s=0.01)
        assert checks(for_orders=False).words == {"it": SLOW}
        asked.free.set()
        for thread in threading.enumerate():
            if thread.name == "health":
                thread.join(5)
        assert checks(for_orders=False).words == {"it": shown}


def test_a_crowd_asks_once_and_takes_the_word_before() -> None:
    clock, asked = FakeClock(), Asked()
    checks = of(asked, clock, timeout_s=5)
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(lambda _: checks(for_orders=False).words, range(16)))
        assert first == [{"it": OK}] * 16
        assert asked.times == 1
        clock.advance(KEEP_S + 0.1)
        asked.free.clear()
        slow_one = pool.submit(checks, for_orders=False)
        while asked.times < 2:
            pass
        others = [pool.submit(checks, for_orders=False) for _ in range(10)]
        assert [o.result(2).words for o in others] == [{"it": OK}] * 10
        assert not slow_one.done()
        asked.free.set()
        assert slow_one.result(5).words == {"it": OK}
    assert asked.times == 2


def test_a_check_that_breaks_is_a_word() -> None:
    def broken() -> Words:
        raise ZeroDivisionError

    checks = Checks((Check({"it": Need.ORDERS}, broken),), FakeClock().monotonic)
    health = checks(for_orders=False)
    assert "ZeroDivisionError" in health.words["it"]
    assert (health.traffic, health.orders) == (True, False)


@pytest.mark.parametrize(
    ("need", "traffic", "orders"),
    [(Need.TRAFFIC, False, False), (Need.ORDERS, True, False), (Need.NOTHING, True, True)],
)
def test_what_depends_on_a_check(need: Need, traffic: bool, orders: bool) -> None:
    health = of(Asked("gone"), FakeClock(), need)(for_orders=False)
    assert (health.traffic, health.orders) == (traffic, orders)


# -- the routes


def ready(desk: WebDesk, path: str = "/readyz", token: str | None = None) -> tuple[int, dict[str, Any]]:
    answer = desk.client.get(path) if token is None else desk.api("get", path, token)
    return answer.status_code, answer.get_json()


def test_strangers_and_clients_see_names_only_and_the_operator_all(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.broker.unready = "the secret reason"
    for token in (None, TOKEN):
        status, body = ready(desk, token=token)
        assert status == 200
        assert body["checks"]["breaker"] == "not ok"
        assert set(body) == {"ready", "can_place_orders", "mode", "checks"}
        assert set(body["checks"].values()) <= {"ok", "not ok", "slow"}
    status, body = ready(desk, token=ADMIN)
    assert body["checks"]["breaker"] == "the secret reason"
    assert body["master"]["rows"] >= 0
    assert ready(desk, token="wrong")[0] == 401


def test_a_named_admin_sees_all_from_his_own_addresses_only(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    near = a_client(desk.clients, "near", "admin", networks=("127.0.0.1",))
    far = a_client(desk.clients, "far", "admin", networks=("tradingview",))
    assert "master" in ready(desk, token=near)[1]
    status, body = ready(desk, token=far)
    assert (status, "master" in body) == (200, False)


@pytest.mark.parametrize(
    ("check", "prepare", "traffic"),
    [
        ("database", lambda desk: setattr(desk.store, "down", True), False),
        ("database", lambda desk: setattr(desk.store, "is_read_only", True), False),
        ("trading_state", lambda desk: set_state(desk, TradingState.REDUCING), True),
        ("breaker", lambda desk: setattr(desk.broker, "unready", Unready("open", "breaker_open")), True),
        ("broker", lambda desk: desk.broker.fail.add("market_open"), True),
    ],
)
def test_each_check_closes_what_depends_on_it(
    tmp_path: Path, check: str, prepare: Any, traffic: bool
) -> None:
    whole = WebDesk(tmp_path)
    assert ready(whole, "/readyz/orders")[0] == 200
    desk = WebDesk(tmp_path)
    prepare(desk)
    status, body = ready(desk, "/readyz/orders", ADMIN)
    assert (status, body["can_place_orders"]) == (503, False)
    assert body["checks"][check] != "ok"
    assert ready(desk)[0] == (200 if traffic else 503)


def test_a_database_that_only_reads_says_so_and_one_that_others_write_to_is_well(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.store.is_queue_stuck = True
    assert ready(desk, "/readyz/orders")[0] == 200
    desk.clock.advance(KEEP_S)
    desk.store.is_read_only = True
    status, body = ready(desk, token=ADMIN)
    bad = {name: word for name, word in body["checks"].items() if word != OK}
    assert (status, bad) == (
        503,
        {"database": "it can be read but not written: the database failed: ReadOnly"},
    )


def set_state(desk: WebDesk, state: TradingState) -> None:
    with desk.store.write() as tx:
        tx.set_trading_state(SCOPE, state, "test", "because")


def test_the_broker_is_asked_for_orders_only_and_once_in_ten_seconds(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    for _ in range(5):
        ready(desk)
    assert desk.broker.calls.count("market_open") == 0
    for _ in range(int(BROKER_KEEP_S) * 10):
        assert ready(desk, "/readyz/orders")[0] == 200
        desk.clock.advance(0.099)
    assert desk.broker.calls.count("market_open") == 1
    desk.clock.advance(0.2)
    desk.broker.fail.add("market_open")
    for _ in range(int(BROKER_KEEP_S) * 10):
        assert ready(desk, "/readyz/orders")[0] == 503
        desk.clock.advance(0.099)
    assert desk.broker.calls.count("market_open") == 2


@pytest.mark.parametrize(("limit", "read"), [(None, "market_open"), (Decimal(1000), "positions")])
def test_a_broker_that_fails_is_read_once_by_each_check(limit: Decimal | None, read: str) -> None:
    guarded, desk = GuardDesk(), TradingDesk()
    policy = desk.desk.policy
    limits = replace(policy.limits, max_daily_loss=limit)
    made = replace(desk.desk, policy=replace(policy, limits=limits))
    guarded.broker.fail.add(read)
    words = broker(
        Parts(
            guarded.clock,
            desk.store,
            ObservedBroker(guarded.guard, lambda *_: None),
            desk.contracts,
            SCOPE,
            None,
            lambda: made,
        )
    )
    assert words["broker"] != OK
    assert (guarded.broker.calls, guarded.slept) == ([read], [])


def test_a_word_about_the_broker_that_is_old_is_not_shown(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    assert "broker" not in ready(desk)[1]["checks"]
    assert ready(desk, "/readyz/orders")[1]["checks"]["broker"] == "ok"
    desk.clock.advance(BROKER_KEEP_S)
    assert ready(desk)[1]["checks"]["broker"] == "ok"
    desk.clock.advance(BROKER_KEEP_S * 3)
    assert "broker" not in ready(desk)[1]["checks"]


def test_without_a_token_the_broker_is_not_asked(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.broker.unready = Unready("no token", "token_expired")
    status, body = ready(desk, "/readyz/orders", ADMIN)
    assert status == 503
    assert body["checks"]["breaker"] == "ok"
    assert body["checks"]["broker"] == "not asked: no token"
    assert desk.broker.calls == []


def test_an_open_breaker_shows_in_the_next_answer(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    assert ready(desk)[1]["can_place_orders"] is True
    desk.broker.unready = Unready("open", "breaker_open")
    assert ready(desk)[1]["can_place_orders"] is False


class NoToken:
    def current(self, now: object) -> None:
        return None


def test_a_token_that_is_missing_and_a_redis_that_is_away(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    settings = desk.app.extensions["ports"].settings.model_copy(
        update={"fyers_app_id": "X-200", "trading_mode": Mode.LIVE}
    )
    away = {"redis": lambda: "it does not answer", "token_store": lambda: None}
    ports = replace(desk.app.extensions["ports"], settings=settings, tokens=NoToken(), dependencies=away)
    app = Flask("health")
    app.register_blueprint(ops.blueprint(ports))
    body = app.test_client().get("/readyz").get_json()
    assert body["checks"]["token"] == "not ok"
    assert body["checks"]["redis"] == "not ok"
    assert body["checks"]["token_store"] == "ok"
    assert (body["ready"], body["can_place_orders"]) == (True, False)
    tokenless = replace(ports, settings=desk.app.extensions["ports"].settings)
    app = Flask("health")
    app.register_blueprint(ops.blueprint(tokenless))
    body = app.test_client().get("/readyz").get_json()
    assert body["can_place_orders"] is True, "alerts are accepted without Redis"
    assert "token" not in body["checks"]


def test_healthz_touches_nothing(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.store.down = True
    desk.broker.fail.add("market_open")
    answer = desk.client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})
    assert desk.broker.calls == []
    assert not [t for t in threading.enumerate() if t.name == "health" and t.is_alive()]
