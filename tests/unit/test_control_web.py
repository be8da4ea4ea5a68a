"""The operator's routes: who may use them, what they change, and what an alert meets afterwards."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.domain.audit import Event
from app.domain.order import Order, Side
from app.domain.outcome import Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.records import Stranger
from tests.builders import LOT, SCOPE
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

STATE, S = "/api/v1/state", Status


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path)


def doubtful(desk: WebDesk) -> Order:
    desk.broker.next_place.append(Unknown("no answer"))
    order = desk.store.data.orders[desk.webhook().get_json()["order_id"]]
    assert order.status is S.IN_DOUBT
    return order


def verdict(desk: WebDesk, order: Order, token: str = ADMIN, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = desk.api("post", f"/api/v1/orders/{order.id.lower()}/resolve", token, body)
    return answer.status_code, answer.get_json()


def set_state(desk: WebDesk, state: str, reason: str = "a test of it") -> dict[str, Any]:
    answer = desk.api("post", STATE, ADMIN, {"state": state, "reason": reason})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def add_stranger(desk: WebDesk, ident: str) -> None:
    now = desk.clock.now()
    with desk.store.write() as tx:
        tx.add_stranger(SCOPE, Stranger(ident, "NSE:X", Side.BUY, 65, "INTRADAY", "ABC", now, now))


ROUTES = [
    ("get", STATE),
    ("post", STATE),
    ("post", "/api/v1/orders/{id}/resolve"),
    ("post", "/internal/jobs/reconcile"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[p for _, p in ROUTES])
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        (f"Basic {ADMIN}", 401),
        (f"Bearer {TOKEN}", 403),
        (f"Bearer {ADMIN}", 200),
    ],
)
def test_only_the_admin(
    desk: WebDesk, method: str, path: str, authorization: str | None, status: int
) -> None:
    order = doubtful(desk)
    body: dict[str, Any] = {"state": "HALTED", "reason": "a test of it"}
    if "resolve" in path:
        body = {"status": "REJECTED", "reason": "a test of it"}
    headers = {} if authorization is None else {"Authorization": authorization}
    path = path.format(id=order.id)
    answer = desk.client.open(
        path, method=method.upper(), json=body if method == "post" else None, headers=headers
    )
    assert answer.status_code == status, answer.text
    if status != 200:
        assert desk.row(order) == order
        assert desk.store.data.states[SCOPE] is TradingState.ACTIVE


def test_a_verdict_shows_in_the_answer_and_in_the_timeline(desk: WebDesk) -> None:
    order = doubtful(desk)
    assert verdict(desk, order, status="NEEDS_REVIEW", reason="gone till Monday")[0] == 200
    status, body = verdict(
        desk, order, status="CANCELLED", reason="cancelled in the app", filled=5, price=101.5
    )
    assert status == 200
    assert (body["state"], body["filled_quantity"], body["fill_price"]) == ("CANCELLED", 5, "101.5")
    assert desk.row(order).fill_price == Decimal("101.5")
    story = desk.api("get", f"/api/v1/orders/{order.id}", TOKEN).get_json()["events"]
    assert [e["event"] for e in story[-2:]] == [Event.ORDER_RESOLVED, Event.ORDER_RESOLVED]
    assert story[-1]["detail"]["by"] == "api:admin"
    assert story[-1]["detail"]["reason"] == "cancelled in the app"


def test_a_repeat_of_the_alert_shows_the_verdict(desk: WebDesk) -> None:
    desk.broker.next_place.append(Unknown("no answer"))
    first = desk.webhook(idempotency_key="k")
    assert first.status_code == 202
    order = desk.store.data.orders[first.get_json()["order_id"]]
    assert verdict(desk, order, status="REJECTED", reason="not in the app")[0] == 200
    again = desk.webhook(idempotency_key="k")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (422, "true")
    assert again.get_json()["code"] == "resolved"
    assert len(desk.sent()) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"status": "FILLED"}, "status"),
        ({"status": "NOSUCH"}, "status"),
        ({"status": "SENDING"}, "status"),
        ({"status": ...}, "status"),
        ({"reason": ...}, "reason"),
        ({"reason": "x"}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"filled": -1}, "filled"),
        ({"filled": LOT + 1}, "filled"),
        ({"filled": 1.5}, "filled"),
        ({"filled": True}, "filled"),
        ({"price": "Infinity"}, "price"),
        ({"price": -1}, "price"),
        ({"price": 100}, "price"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
def test_a_wrong_verdict_names_its_field(desk: WebDesk, changes: dict[str, Any], field: str) -> None:
    order = doubtful(desk)
    body = {"status": "ACCEPTED", "reason": "seen in the app"} | changes
    status, said = verdict(desk, order, **{k: v for k, v in body.items() if v is not ...})
    assert status == 400
    assert [e["field"] for e in said["errors"]] == [field]
    assert desk.row(order) == order


def test_a_waiting_exit_can_be_denied(desk: WebDesk) -> None:
    entry = doubtful(desk)
    waiting = desk.webhook(action="EXIT", lots=...)
    assert waiting.get_json()["status"] == "exit_pending"
    exit_ = desk.store.data.orders[waiting.get_json()["order_id"]]
    assert verdict(desk, exit_, status="SENDING", reason="do it now")[0] == 400
    status, body = verdict(desk, exit_, status="DENIED", reason="sold by hand")
    assert (status, body["state"], body["status"]) == (200, "DENIED", "denied")
    assert desk.api("post", "/internal/jobs/reconcile", ADMIN, b"").status_code == 200
    assert (desk.row(entry).status, desk.row(exit_).status) == (S.FILLED, S.DENIED)
    assert len(desk.sent()) == 1


def test_the_state_says_who_and_why_and_what_waits(desk: WebDesk) -> None:
    add_stranger(desk, "7")
    done = set_state(desk, "HALTED", "going away")
    assert (done["state"], done["by"], done["reason"], done["changed"]) == (
        "HALTED",
        "api:admin",
        "going away",
        True,
    )
    assert done["acknowledged"] == []
    assert set_state(desk, "HALTED", "me too")["changed"] is False
    body = desk.api("get", STATE, ADMIN).get_json()
    assert (body["state"], body["reason"]) == ("HALTED", "going away")
    assert [c["state"] for c in body["history"]] == ["HALTED", "ACTIVE"]
    assert [(s["broker_order_id"], s["tag"], s["quantity"]) for s in body["strangers"]] == [("7", "ABC", 65)]


def test_resuming_answers_with_the_strangers_it_acknowledged(desk: WebDesk) -> None:
    set_state(desk, "HALTED")
    add_stranger(desk, "7")
    add_stranger(desk, "8")
    done = set_state(desk, "ACTIVE", "looked at both")
    assert [(s["broker_order_id"]) for s in done["acknowledged"]] == ["7", "8"]
    assert desk.api("get", STATE, ADMIN).get_json()["strangers"] == []
    assert set_state(desk, "ACTIVE", "again")["acknowledged"] == []


@pytest.mark.parametrize(
    "body", [{}, {"state": "HALTED"}, {"state": "halt", "reason": "because"}, b"[]", b""]
)
def test_a_wrong_state_changes_nothing(desk: WebDesk, body: Any) -> None:
    assert desk.api("post", STATE, ADMIN, body).status_code == 400
    assert desk.store.data.states[SCOPE] is TradingState.ACTIVE


def test_halted_stops_alerts_and_not_the_admins_exit(desk: WebDesk) -> None:
    desk.webhook()
    assert len(desk.sent()) == 1
    set_state(desk, "HALTED")
    for answer in (desk.webhook(strategy="two"), desk.webhook(action="EXIT", lots=...)):
        assert (answer.status_code, answer.get_json()["code"]) == (422, "trading_state")
    client = {k: v for k, v in (ALERT | {"action": "EXIT"}).items() if k != "lots"}
    by_client = desk.api("post", "/api/v1/orders", TOKEN, client)
    assert (by_client.status_code, by_client.get_json()["code"]) == (422, "trading_state")
    assert len(desk.sent()) == 1
    by_admin = desk.api("post", "/api/v1/orders", ADMIN, client)
    assert by_admin.status_code == 200, by_admin.text
    assert desk.net() == 0
    entry = desk.api("post", "/api/v1/orders", ADMIN, ALERT)
    assert (entry.status_code, entry.get_json()["code"]) == (422, "trading_state")


def test_reducing_lets_exits_through_and_resuming_all(desk: WebDesk) -> None:
    desk.webhook()
    set_state(desk, "REDUCING")
    assert desk.webhook(strategy="two").status_code == 422
    assert desk.webhook(action="EXIT", lots=...).status_code == 200
    assert desk.net() == 0
    set_state(desk, "ACTIVE")
    assert desk.webhook(strategy="three").status_code == 200


def test_a_job_that_cannot_run_is_no_success(desk: WebDesk) -> None:
    doubtful(desk)
    desk.broker.fail.add("order_book")
    answer = desk.api("post", "/internal/jobs/reconcile", ADMIN, b"")
    assert answer.status_code == 503
    assert desk.api("post", "/internal/jobs/nosuch", ADMIN, b"").status_code == 404
    assert desk.api("get", "/internal/jobs/reconcile", ADMIN).status_code == 405
