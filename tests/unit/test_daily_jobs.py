"""Jobs that tell a person: overnight positions, the token, the day's summary; and heartbeats at the webhook."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.domain.alert import IST
from app.domain.audit import Event
from app.domain.order import Protection
from app.domain.status import Status
from app.errors import BrokerReadFailed
from app.jobs import daily as daily_jobs
from app.service.summary import summary
from app.web.ports import Ports
from tests.builders import LOT, TODAY, an_order
from tests.unit.web_desk import TOKEN, WebDesk


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path)


def ports_of(desk: WebDesk) -> Ports:
    ports: Ports = desk.app.extensions["ports"]
    return ports


def carried(desk: WebDesk) -> str:
    """One entry, filled yesterday. The position's id."""
    assert desk.webhook(productType="MARGIN").status_code == 200
    desk.reconcile()
    (order,) = desk.store.orders
    assert order.filled_quantity == LOT
    desk.clock.advance(23 * 3600)
    desk.broker.book.clear()
    return f"{order.ticker}-{order.product}"


def test_an_overnight_position_without_a_stop_pages(desk: WebDesk) -> None:
    assert daily_jobs.overnight(ports_of(desk), None) == "nothing was carried overnight"
    position = carried(desk)
    assert position in desk.broker.protected
    assert daily_jobs.overnight(ports_of(desk), None) == "1 carried overnight, each with a stop or closed"
    stop, target, quantity = desk.broker.protected[position]
    assert stop > 0
    desk.broker.protected[position] = (Decimal(0), target, quantity)  # a target alone protects nothing
    said = daily_jobs.overnight(ports_of(desk), None)
    assert said.startswith("carried overnight without a stop at the broker: ")
    assert desk.notifier.pages == ["overnight_unprotected"]


def test_the_mornings_look_marks_what_was_carried(desk: WebDesk) -> None:
    """The passes watch the day's own entries: nobody else would see that a carried stop is gone, or there again."""
    position = carried(desk)
    stop = desk.broker.protected[position]
    for protected, mark in ((None, Protection.MISSING), (stop, Protection.SEEN), (None, Protection.MISSING)):
        desk.broker.protected.pop(position)
        if protected is not None:
            desk.broker.protected[position] = protected
        daily_jobs.overnight(ports_of(desk), None)
        daily_jobs.overnight(ports_of(desk), None)
        (order,) = desk.store.orders
        assert order.protection is mark
        desk.broker.protected[position] = (Decimal(0), Decimal(0), None)
    events = [e.event for e in desk.store.events(order.scope, order.id)]
    assert events[-3:] == [Event.PROTECTION_MISSING, Event.PROTECTION_SEEN, Event.PROTECTION_MISSING]


def test_the_mornings_look_leaves_the_days_own_entries_to_the_passes(desk: WebDesk) -> None:
    position = carried(desk)
    assert desk.webhook(productType="MARGIN").status_code == 200
    desk.reconcile()
    desk.broker.protected[position] = (Decimal(0), Decimal(0), None)
    daily_jobs.overnight(ports_of(desk), None)
    before, today = desk.store.orders
    assert (before.protection, today.protection) == (Protection.MISSING, Protection.SEEN)


def test_a_position_that_is_closed_needs_no_stop(desk: WebDesk) -> None:
    position = carried(desk)
    del desk.broker.protected[position]
    desk.broker.net.clear()
    daily_jobs.overnight(ports_of(desk), None)
    assert desk.notifier.pages == []


def test_a_broker_that_does_not_say_pages_and_the_job_fails(desk: WebDesk) -> None:
    carried(desk)
    desk.broker.fail.add("positions")
    with pytest.raises(BrokerReadFailed):
        daily_jobs.overnight(ports_of(desk), None)
    assert desk.notifier.pages == ["overnight_unknown"]


class Tokens:
    def __init__(self, token: str | None) -> None:
        self.token = token

    def current(self, now: datetime) -> str | None:
        return self.token


@pytest.mark.parametrize(("token", "notes", "pages"), [(None, 1, 1), ("t", 0, 0)])
def test_a_missing_token_is_a_note_and_then_a_page(
    tmp_path: Path, token: str | None, notes: int, pages: int
) -> None:
    desk = WebDesk(tmp_path, fyers_app_id="X-200", fyers_access_token="given")
    ports = replace(ports_of(desk), tokens=Tokens(token))
    daily_jobs.token_note(ports, None)
    assert desk.notifier.notes == ["token_missing"] * notes
    daily_jobs.token_page(ports, None)
    assert desk.notifier.pages == ["token_missing"] * pages


def test_the_paper_exchange_needs_no_token(desk: WebDesk) -> None:
    daily_jobs.token_page(ports_of(desk), None)
    assert desk.notifier.pages == []


def test_the_days_summary(desk: WebDesk) -> None:
    desk.broker.profit = Decimal("-1234.5")
    assert desk.webhook().status_code == 200
    assert desk.webhook(lots=2).status_code == 422
    desk.reconcile()
    said = daily_jobs.day_summary(ports_of(desk), None)
    assert desk.notifier.notes == ["daily_summary"]
    assert "2 orders (1 DENIED, 1 FILLED)" in said
    assert f"filled: {LOT} contracts in 1 orders; result: -1,234.50 rupees; no open doubts" in said
    desk.broker.fail.add("positions")
    assert "result: not known" in daily_jobs.day_summary(ports_of(desk), None)


def test_a_summary_by_hand() -> None:
    orders = [
        an_order(1, status=Status.FILLED, filled_quantity=65),
        an_order(2, status=Status.IN_DOUBT),
        an_order(3, status=Status.CANCELLED, filled_quantity=10),
    ]
    assert summary(TODAY, orders, Decimal(10), 1, 2).splitlines() == [
        "Wed 18 Nov 2026: 3 orders (1 IN_DOUBT, 1 FILLED, 1 CANCELLED)",
        "filled: 75 contracts in 2 orders",
        "result: +10.00 rupees",
        "open doubts: 1",
        "orders at the broker that are not ours, nobody has looked at: 2",
    ]


def heartbeat(desk: WebDesk, token: str = TOKEN, **fields: Any) -> Any:
    body = {"token": token, "action": "HEARTBEAT", "strategy": "orb", "every_seconds": 300, **fields}
    return desk.webhook(json.dumps(body).encode())


def test_one_name_too_many_is_refused_and_leaves_its_record(
    desk: WebDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.heartbeat.MOST_WATCHED", 2)
    for strategy in ("one", "two", "one"):
        assert heartbeat(desk, strategy=strategy).status_code == 200
    answer = heartbeat(desk, strategy="three")
    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (400, "strategy")
    assert [r.code for _, r in desk.store.data.refusals] == [answer.get_json()["code"]]


def test_a_heartbeat_is_kept_and_is_never_an_order(desk: WebDesk) -> None:
    answer = heartbeat(desk, symbol="NIFTY", strikeprice=24500, optionType="CE", expiry="WEEKLY", lots=1)
    due = (desk.clock.now() + timedelta(seconds=480)).astimezone(IST).isoformat(timespec="milliseconds")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"status": "ok", "strategy": "orb", "missing_after": due},
    )
    assert heartbeat(desk, action=" heartbeat ", every_seconds="300").status_code == 200
    (watched,) = desk.heartbeats.watched()
    assert (watched.client, watched.strategy, watched.every_seconds) == ("default", "orb", 300)
    assert desk.store.orders == []
    assert desk.broker.ledger == []


@pytest.mark.parametrize("every", [59, 14_401, "soon", None, True, 60.5])
def test_a_heartbeat_with_a_wrong_interval_is_refused(desk: WebDesk, every: object) -> None:
    answer = heartbeat(desk, every_seconds=every)
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] == "every_seconds"
    assert desk.heartbeats.watched() == ()


def test_a_heartbeat_needs_the_clients_token(desk: WebDesk) -> None:
    assert heartbeat(desk, token="wrong").status_code == 401
    assert desk.heartbeats.watched() == ()


def test_the_api_for_orders_takes_no_heartbeat(desk: WebDesk) -> None:
    body = {"action": "HEARTBEAT", "strategy": "orb", "every_seconds": 300}
    assert desk.api("post", "/api/v1/orders", TOKEN, body).status_code == 400
    assert desk.heartbeats.watched() == ()


def test_a_job_by_the_api_keeps_its_run(desk: WebDesk) -> None:
    said = desk.api("post", "/internal/jobs/reconcile", body=b"")
    assert said.status_code == 200
    (run,) = desk.runs.last()
    assert (run.name, run.ok, run.result) == ("reconcile", True, said.get_json()["result"])
    desk.broker.fail.add("order_book")
    desk.webhook()
    assert desk.api("post", "/internal/jobs/reconcile", body=b"").status_code == 503
    (run,) = desk.runs.last()
    assert run.ok is False
    assert run.result.startswith("BrokerReadFailed: ")
