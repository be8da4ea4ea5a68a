"""Named clients at the routes: what they may, what stands of them in the record, and the trader under attack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.web.middleware.address import TRADINGVIEW
from app.web.middleware.failures import FREE_FAILURES, FREE_RECORDS
from tests.fake_clients import a_client
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    made = WebDesk(tmp_path)
    policy = replace(made.desk.policy, limits=replace(made.desk.policy.limits, max_lots=5))
    made.desk = replace(made.desk, policy=policy)
    return made


def from_address(desk: WebDesk, address: str) -> None:
    desk.client.environ_base["REMOTE_ADDR"] = address


def test_who_sent_it_stands_in_the_row_and_in_the_answer(desk: WebDesk) -> None:
    token = a_client(desk.clients)
    answer = desk.webhook(token=token)
    assert (answer.status_code, answer.get_json()["client"]) == (200, "desk-2")
    (order,) = desk.store.orders
    assert order.client == "desk-2"
    assert token not in repr(desk.store.data)


def test_clients_do_not_see_or_exit_each_other_s(desk: WebDesk) -> None:
    one, two = a_client(desk.clients, "one"), a_client(desk.clients, "two")
    order = desk.webhook(token=one).get_json()["order_id"]
    assert desk.api("get", f"/api/v1/orders/{order}", two).status_code == 404
    assert desk.api("get", "/api/v1/orders", two).get_json()["orders"] == []
    assert desk.api("get", f"/api/v1/orders/{order}", one).status_code == 200
    answer = desk.webhook(token=two, action="EXIT", lots=...)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "nothing_to_exit")
    assert desk.webhook(token=one, action="EXIT", lots=...).status_code == 200


@pytest.mark.parametrize(
    ("limits", "fields", "status"),
    [
        ({"max_lots": 2}, {"lots": 2}, 200),
        ({"max_lots": 1}, {"lots": 2}, 422),
        ({"symbols": frozenset({"NIFTY"})}, {}, 200),
        ({"symbols": frozenset({"BANKNIFTY"})}, {}, 422),
        ({"networks": ("127.0.0.1",)}, {}, 200),
        ({"networks": ("tradingview",)}, {}, 403),
    ],
)
def test_a_client_s_own_limits(
    desk: WebDesk, limits: dict[str, Any], fields: dict[str, Any], status: int
) -> None:
    token = a_client(desk.clients, **limits)
    assert desk.webhook(token=token, **fields).status_code == status
    assert len(desk.sent()) == (status == 200)
    again = desk.api("post", "/api/v1/check", token, {**ALERT, **fields})
    if status == 403:
        assert again.status_code == 403
    else:
        assert again.get_json()["would_send"] is (status == 200)
    assert desk.webhook(lots=2).status_code == 200, "another client's limits are its own"


def test_a_client_s_limits_do_not_stop_its_exit(desk: WebDesk) -> None:
    token = a_client(desk.clients, max_lots=3)
    assert desk.webhook(token=token, lots=3).status_code == 200
    desk.clients.revoke("desk-2")
    narrow = a_client(desk.clients, max_lots=1, symbols=frozenset({"BANKNIFTY"}))
    desk.clock.advance(1)
    assert desk.webhook(token=narrow, action="EXIT", lots=...).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "webhook", "reads", "admin"),
    [
        (("orders",), 200, 403, 403),
        (("read",), 403, 200, 403),
        (("orders", "read"), 200, 200, 403),
        (("admin",), 403, 200, 200),
        (("admin", "orders"), 200, 200, 200),
    ],
)
def test_scopes(desk: WebDesk, scopes: tuple[str, ...], webhook: int, reads: int, admin: int) -> None:
    token = a_client(desk.clients, "desk-2", *scopes)
    assert desk.webhook(token=token).status_code == webhook
    assert desk.api("get", "/api/v1/orders", token).status_code == reads
    assert desk.api("get", "/api/v1/state", token).status_code == admin
    assert desk.api("get", "/api/v1/refused", token).status_code == admin
    contracts = "/api/v1/contracts?symbol=NIFTY&strike=24500&type=CE"
    assert desk.api("get", contracts, token).status_code == 200


def test_a_named_admin_s_changes_carry_his_name_and_his_exit_is_his_own(desk: WebDesk) -> None:
    token = a_client(desk.clients, "boss", "admin")
    assert desk.webhook().status_code == 200
    exit_body = {k: v for k, v in ALERT.items() if k != "lots"} | {"action": "EXIT"}
    answer = desk.api("post", "/api/v1/orders", token, exit_body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "nothing_to_exit")
    assert desk.api("post", "/api/v1/orders", ADMIN, exit_body).status_code == 200
    answer = desk.api("post", "/api/v1/state", token, {"state": "HALTED", "reason": "going away"})
    assert answer.get_json()["by"] == "api:boss"


def test_a_revoked_token_is_refused_within_a_second(desk: WebDesk) -> None:
    token = a_client(desk.clients)
    assert desk.webhook(token=token).status_code == 200
    desk.clients.revoke("desk-2")
    desk.clock.advance(0.999)
    assert desk.webhook(token=token, strategy="later").status_code == 401
    assert len(desk.sent()) == 1


def test_an_alert_by_a_valid_token_passes_while_its_address_attacks(desk: WebDesk) -> None:
    """All TradingView users share four addresses: 1,000 wrong tokens a second come from each of them."""
    named = a_client(desk.clients)
    refused: dict[int, int] = {}
    for second in range(3):
        for number in range(1000):
            from_address(desk, TRADINGVIEW[number % 4])
            answer = desk.webhook(token=f"wrong {second} {number}")
            refused[answer.status_code] = refused.get(answer.status_code, 0) + 1
            if number % 250 == 0:
                token = named if number else TOKEN
                mine = desk.webhook(token=token, strategy=f"s {second} {number}")
                assert mine.status_code == 200, mine.text
            desk.clock.advance(0.001)
    assert len(desk.sent()) == 12
    assert set(refused) == {401, 429}
    assert refused[401] <= 4 * (FREE_FAILURES + 1)
    assert len(desk.store.data.refusals) <= FREE_RECORDS + 2 * 4
    assert desk.clients.reads <= 2 * 4, "nor does the attack ask the database for each"
    assert {r.address for _, r in desk.store.data.refusals} == set(TRADINGVIEW)


def test_a_429_says_when_to_come_again_and_nothing_else(desk: WebDesk) -> None:
    for _ in range(FREE_FAILURES):
        assert desk.webhook(token="wrong").status_code == 401
    answer = desk.webhook(token="wrong")
    assert (answer.status_code, answer.get_json()["code"]) == (429, "too_many_failures")
    assert int(answer.headers["Retry-After"]) > 0
    record = desk.store.data.refusals[-1][1]
    assert (record.status, record.client, record.safe_fields) == (429, None, {})
