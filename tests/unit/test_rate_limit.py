"""Rate limits: who is counted, what is never refused, and what a Redis that dies or hangs costs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from werkzeug.test import TestResponse

from app.service.heartbeat import MOST_WATCHED
from app.settings import Settings
from app.web.middleware import rate_limit
from app.web.middleware.failures import FREE_FAILURES
from app.web.middleware.rate_limit import (
    API,
    BEATS,
    FAILED_LOGINS,
    NOT_BY_CLIENT,
    OPEN,
    URGENT,
    SweptMemory,
)
from tests.fake_clients import a_client
from tests.redis_server import RedisServer
from tests.unit.login_desk import ADMIN as LOGIN_ADMIN
from tests.unit.login_desk import NewDesk
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

SEVERAL = "3 per minute"


def amount(limit: str) -> int:
    return int(limit.split(" ", 1)[0])


def entry(desk: WebDesk, number: int, **fields: Any) -> TestResponse:
    return desk.webhook(idempotency_key=f"entry-{number}", **fields)


def flooded(directory: Path, **settings: Any) -> WebDesk:
    """A desk whose default client has sent as many entries as it may."""
    desk = WebDesk(directory, rate_limit_webhook=SEVERAL, **settings)
    assert [entry(desk, n).status_code for n in range(4)] == [200, 200, 200, 429]
    return desk


NAMELESS: tuple[dict[str, str], ...] = ({"Authorization": "Bearer wrong"}, {})


def test_every_route_is_counted_one_way_or_another(tmp_path: Path, new_desk: NewDesk) -> None:
    """What the table does not name is counted by client, and so it must ask who that is; whoever does not say it
    counts by address, each way of asking from an address of its own here.
    """
    seen, asked = set(), 0
    for app in (WebDesk(tmp_path).app, new_desk().app):
        client = app.test_client()
        for rule in app.url_map.iter_rules():
            seen.add(rule.endpoint)
            if rule.endpoint in NOT_BY_CLIENT:
                continue
            path = re.sub(r"<[^>]+>", "any", rule.rule)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                for headers in NAMELESS:
                    asked += 1
                    here = {"REMOTE_ADDR": f"203.0.{113 + asked // 250}.{asked % 250}"}
                    said = [
                        client.open(path, method=method, headers=headers, environ_base=here).status_code
                        for _ in range(FREE_FAILURES + 1)
                    ]
                    assert said == [401] * FREE_FAILURES + [429], (method, path, headers)
    assert set(NOT_BY_CLIENT) <= seen


def test_too_many_entries_are_told_when_to_come_again_and_send_nothing(tmp_path: Path) -> None:
    desk = flooded(tmp_path)
    answer = entry(desk, 5)
    assert (answer.status_code, answer.get_json()["code"]) == (429, "rate_limited")
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["RateLimit-Limit"] == "3"
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert 0 < int(answer.headers["RateLimit-Reset"]) <= 61
    assert len(desk.broker.ledger) == 3
    assert {refusal.code for _, refusal in desk.store.data.refusals} == {"rate_limited"}


def test_what_is_left_stands_in_a_good_answer(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, rate_limit_webhook=SEVERAL)
    left = [entry(desk, n).headers["RateLimit-Remaining"] for n in range(3)]
    assert left == ["2", "1", "0"]


def test_each_client_has_its_own_count_whichever_door_it_takes(tmp_path: Path) -> None:
    desk = flooded(tmp_path)
    other = a_client(desk.clients, "desk-2")
    assert entry(desk, 5, token=other).status_code == 200
    assert (
        desk.api("post", "/api/v1/orders", TOKEN, {**ALERT, "idempotency_key": "by-api"}).status_code == 429
    )
    assert (
        desk.api("post", "/api/v1/orders", other, {**ALERT, "idempotency_key": "by-api"}).status_code == 200
    )


def test_a_flood_of_entries_stops_no_repeat(tmp_path: Path) -> None:
    desk = flooded(tmp_path)
    first, again = desk.store.orders[0].id, entry(desk, 0)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.get_json()["order_id"] == first
    assert len(desk.broker.ledger) == 3


@pytest.mark.parametrize(
    "fields", [{"action": "EXIT", "lots": ...}, {"action": "SELL"}], ids=["EXIT", "SELL"]
)
def test_a_flood_of_entries_stops_no_exit(tmp_path: Path, fields: dict[str, Any]) -> None:
    desk = flooded(tmp_path)
    answer = entry(desk, 6, **fields)
    assert answer.status_code == 200, answer.text
    assert desk.broker.ledger[-1].side == "SELL"


def test_a_sell_that_closes_nothing_is_an_entry(tmp_path: Path) -> None:
    desk = flooded(tmp_path)
    assert entry(desk, 6, action="SELL", productType="MARGIN").status_code == 429
    assert entry(desk, 7, action="SELL", symbol="NOSUCH").status_code == 429


def test_exits_do_not_use_up_what_entries_have(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, rate_limit_webhook=SEVERAL)
    for n in range(10):
        assert entry(desk, n, action="EXIT", lots=...).status_code == 422
    assert entry(desk, 20).status_code == 200


def test_an_end_for_a_loop_of_heartbeats_and_not_for_alerts(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    beats = [
        desk.webhook(action="HEARTBEAT", strategy=f"made up {n % MOST_WATCHED}", every_seconds=60).status_code
        for n in range(amount(BEATS) + 1)
    ]
    assert (set(beats[:-1]), beats[-1]) == ({200}, 429)
    assert entry(desk, 0).status_code == 200


def test_an_end_for_a_loop_of_exits(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    statuses = [entry(desk, n, action="EXIT", lots=...).status_code for n in range(amount(URGENT) + 1)]
    assert (set(statuses[:-1]), statuses[-1]) == ({422}, 429)


def test_a_database_that_is_down_is_said_and_not_taken_for_a_flood(tmp_path: Path) -> None:
    desk = flooded(tmp_path)
    desk.store.down = True
    assert entry(desk, 0).status_code == 503


def test_the_api_is_counted_by_client_and_the_kill_switch_never(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    asked = [desk.api("get", "/api/v1/state").status_code for _ in range(amount(API) + 1)]
    assert (set(asked[:-1]), asked[-1]) == ({200}, 429)
    assert desk.api("get", "/api/v1/orders").status_code == 429
    assert desk.api("get", "/api/v1/orders", TOKEN).status_code == 200
    halted = {"state": "HALTED", "reason": "going away"}
    for _ in range(amount(API) + 1):
        assert desk.api("post", "/api/v1/state", ADMIN, halted).status_code == 200
    assert desk.api("post", "/api/v1/kill", ADMIN, {"do": "cancel", "reason": "enough"}).status_code == 200


def test_health_and_readiness_are_always_answered(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    for path in ("/healthz", "/readyz"):
        assert {desk.client.get(path).status_code for _ in range(amount(OPEN) + 50)} == {200}


def test_pages_without_a_token_are_counted_by_address(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)

    def read(address: str) -> int:
        return desk.client.get("/openapi.json", environ_base={"REMOTE_ADDR": address}).status_code

    asked = [read("203.0.113.7") for _ in range(amount(OPEN) + 1)]
    assert (set(asked[:-1]), asked[-1]) == ({200}, 429)
    assert read("203.0.113.8") == 200
    here = {"REMOTE_ADDR": "203.0.113.7"}
    assert desk.client.post("/webhook", json={"token": TOKEN, **ALERT}, environ_base=here).status_code == 200


def test_an_ipv6_sender_cannot_change_addresses_within_its_network(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    asked = [
        desk.client.get("/openapi.json", environ_base={"REMOTE_ADDR": f"2001:db8::{n:x}"}).status_code
        for n in range(amount(OPEN) + 1)
    ]
    assert (set(asked[:-1]), asked[-1]) == ({200}, 429)


def test_logins_that_fail_are_limited_and_the_right_token_passes(new_desk: NewDesk) -> None:
    client = new_desk().app.test_client()

    def login(token: str) -> TestResponse:
        return client.post("/fyers/session", data={"token": token})

    tried = [login("wrong").status_code for _ in range(amount(FAILED_LOGINS) + 1)]
    assert (set(tried[:-1]), tried[-1]) == ({401}, 429)
    assert login(LOGIN_ADMIN).status_code == 303


@pytest.mark.parametrize("text", ["often", "0 per minute", "60", "60 per", "-1 per minute"])
def test_a_limit_that_is_none_is_named_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="rate_limit_webhook"):
        Settings.model_validate({"rate_limit_webhook": text})


def test_several_limits_hold_at_once(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, rate_limit_webhook="50 per hour; 2 per minute")
    assert [entry(desk, n).status_code for n in range(3)] == [200, 200, 429]


def test_a_process_without_redis_has_its_share(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, rate_limit_webhook="4 per minute", expected_processes=2)
    assert [entry(desk, n).status_code for n in range(3)] == [200, 200, 429]


def test_on_postgres_there_are_two_processes_also_where_nobody_said_so(tmp_path: Path) -> None:
    desk = WebDesk(
        tmp_path, rate_limit_webhook="4 per minute", database_url="postgresql+psycopg://localhost/x"
    )
    assert [entry(desk, n).status_code for n in range(3)] == [200, 200, 429]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def two(directory: Path, redis: RedisServer) -> tuple[WebDesk, WebDesk]:
    """Two instances with one Redis, four entries a minute between them."""
    given = {"redis_url": redis.url, "rate_limit_webhook": "4 per minute", "expected_processes": 2}
    return WebDesk(directory, **given), WebDesk(directory, **given)


@pytest.mark.slow
def test_instances_share_one_count(tmp_path: Path, redis: RedisServer) -> None:
    one, other = two(tmp_path, redis)
    statuses = [entry(desk, n).status_code for n in range(3) for desk in (one, other)]
    assert statuses == [200, 200, 200, 200, 429, 429]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_redis_that_is_gone_fails_no_request_and_costs_one_time_out(
    tmp_path: Path, redis: RedisServer, how: str
) -> None:
    one, _ = two(tmp_path, redis)
    assert entry(one, 0).status_code == 200
    getattr(redis, how)()
    try:
        started = time.monotonic()
        statuses = [entry(one, 1).status_code]
        first_s = time.monotonic() - started
        statuses += [entry(one, n).status_code for n in (2, 3)]
        assert statuses == [200, 200, 429], "its share of four is two"
        assert one.client.get("/openapi.json").status_code == 200
        # The usual request takes milliseconds; without the time-outs a hung Redis would hold it for good.
        assert first_s < 0.5
    finally:
        if how == "hang":
            redis.resume()


@pytest.mark.slow
def test_a_redis_that_hangs_between_the_count_and_the_headers(tmp_path: Path, redis: RedisServer) -> None:
    one, _ = two(tmp_path, redis)
    assert entry(one, 0).status_code == 200
    place = one.broker.place

    def hang_while_placing(*args: Any, **kwargs: Any) -> Any:
        redis.hang()
        return place(*args, **kwargs)

    one.broker.place = hang_while_placing  # type: ignore[method-assign]
    try:
        answer = entry(one, 1)
        assert answer.status_code == 200
        assert "RateLimit-Limit" not in answer.headers
    finally:
        redis.resume()


def test_counting_in_this_process_starts_no_thread_per_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "SWEEP_S", 60.0)
    memory = SweptMemory("swept-memory://")
    first = memory.timer
    for _ in range(100):
        assert memory.acquire_entry("key", 1000, 60)
    assert memory.timer is first
    assert first.daemon
    first.cancel()


def test_what_is_over_is_swept_from_this_process_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "SWEEP_S", 0.01)
    memory = SweptMemory("swept-memory://")
    assert memory.acquire_entry("key", 1000, 0)
    memory.timer.join(10)
    assert memory.acquire_entry("another", 1000, 60)
    memory.timer.join(10)
    assert not memory.events.get("key")
