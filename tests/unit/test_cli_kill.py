"""`flask halt` with its hands, `flask risk list`, and the kill switch by API: what they do, say and refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.domain.risk import CHECKS, TradingState
from app.domain.status import Status
from app.factory import create_app
from app.settings import load
from app.store.migrate import upgrade
from tests.builders import LOT, SCOPE
from tests.service.desk import TradingDesk
from tests.unit.operator_desk import ME, Operator
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk

KILL = "/api/v1/kill"


@pytest.fixture
def trading(operator: Operator) -> Iterator[TradingDesk]:
    """The operator's commands on a desk of fakes, whose broker shows what they do."""
    desk = TradingDesk()
    real = operator.ports
    operator.app.extensions["ports"] = replace(real, store=desk.store, scope=SCOPE, desk=lambda: desk.desk)
    cli.register(operator.app)
    yield desk
    operator.app.extensions["ports"] = real


@pytest.fixture
def web(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path)


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


def test_a_reason_that_is_no_utf_8_halts_all_the_same(operator: Operator, trading: TradingDesk) -> None:
    assert operator.said("halt", "--reason", "caf\udce9").startswith("HALTED from now on")
    with trading.store.read() as tx:
        assert tx.state_change(SCOPE).reason == "caf\ufffd"


def test_halt_alone_sends_nothing(operator: Operator, trading: TradingDesk) -> None:
    trading.held()
    assert operator.said("halt", "--reason", "enough").startswith("HALTED from now on")
    assert (state(trading), trading.net()) == (TradingState.HALTED, LOT)


def test_halt_cancel(operator: Operator, trading: TradingDesk) -> None:
    trading.broker.fills = False
    order = trading.alert("BUY").order
    assert f"cancelled {order.id}" in operator.said("halt", "--cancel", "--reason", "enough")
    assert state(trading) is TradingState.HALTED
    assert [row.is_working for row in trading.broker.book] == [False]


def test_halt_flatten_leaves_a_hands_position_unless_it_is_typed_out(
    operator: Operator, trading: TradingDesk
) -> None:
    trading.held()
    trading.broker.by_hand("NSE:X", 75)
    said = operator.said("halt", "--flatten", "--reason", "enough")
    assert f"SELL {LOT} {trading.contract.ticker} INTRADAY: ACCEPTED" in said
    assert (trading.net(), trading.broker.net["NSE:X", "INTRADAY"]) == (0, 75)
    trading.reconcile()
    said = operator.said("halt", "--flatten", "--all-positions", "ALL POSITIONS", "--reason", "enough")
    assert said.startswith(f"it was HALTED already, since 2026-11-18 10:30:00, by {ME}")
    assert "closed by hand: NSE:X-INTRADAY 75: Accepted" in said
    assert trading.broker.net["NSE:X", "INTRADAY"] == 0


def test_what_is_left_over_ends_with_exit_code_1(operator: Operator, trading: TradingDesk) -> None:
    trading.held()
    trading.broker.fail.add("positions")
    result = operator.run("halt", "--flatten", "--reason", "enough")
    assert result.exit_code == 1
    assert "PROBLEM" in result.stdout
    assert state(trading) is TradingState.HALTED


@pytest.mark.parametrize(
    "words",
    [
        ("--all-positions", "ALL POSITIONS"),
        ("--flatten", "--all-positions", "all positions"),
        ("--cancel", "--all-positions", "ALL POSITIONS"),
        ("--cancel", "--flatten"),
    ],
    ids=" ".join,
)
def test_half_said_does_nothing(operator: Operator, trading: TradingDesk, words: tuple[str, ...]) -> None:
    operator.refused("halt", *words, "--reason", "enough")
    assert state(trading) is TradingState.ACTIVE


def test_nothing_to_do_is_said(operator: Operator, trading: TradingDesk) -> None:
    assert operator.said("halt", "--flatten", "--reason", "enough").endswith("nothing was held\n")


def listed(operator: Operator) -> dict[str, list[str]]:
    lines = operator.said("risk", "list").splitlines()
    assert lines[0].split() == ["CODE", "LIMIT", "STOPS", "EXITS", "SETTING", "WHAT"]
    return {line.split()[0]: [c for c in line.split("  ") if c.strip()] for line in lines[1:]}


def test_risk_list_has_every_check_and_cap(operator: Operator) -> None:
    rows = listed(operator)
    assert list(rows)[: len(CHECKS)] == [c.code for c in CHECKS]
    assert {n for n, cells in rows.items() if cells[2].strip() == "yes"} == {
        "trading_state",
        "market_closed",
        "signal_age",
    }
    limits = {name: cells[1].strip() for name, cells in rows.items()}
    assert limits["trading_state"] == "always on"
    assert {n for n, limit in limits.items() if limit == "off"} == {
        "market_closed",
        "position_policy",
        "symbol",
        "intraday_cutoff",
        "expiry_cutoff",
        "order_risk",
        "price_band",
        "min_premium",
        "repeat",
        "open_value",
        "cap_lots_day",
        "cap_contracts_day",
        "daily_loss",
    }
    assert (limits["signal_age"], limits["runaway"], limits["cap_orders_day"]) == ("60", "30/60s", "300")


def test_risk_list_shows_what_is_set(fresh: Operator, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "qty_caps": {"NIFTY": 2},
        "risk_symbols": "nifty",
        "enforce_market_hours": True,
        "risk_position_policy": "cover_only",
        "risk_min_premium": "1.50",
        "risk_max_daily_loss": "1000",
        "risk_max_open_lots": "",
    }
    app = create_app(load(instance_dir=tmp_path / "instance", **given))
    cli.register(app)
    upgrade(app.extensions["ports"].settings.url)
    limits = {name: cells[1].strip() for name, cells in listed(Operator(app)).items()}
    assert limits["max_lots"] == "1; NIFTY 2"
    assert (limits["symbol"], limits["market_closed"], limits["intraday_cutoff"]) == (
        "NIFTY",
        "on",
        "15:10 IST",
    )
    assert (limits["position_policy"], limits["min_premium"], limits["daily_loss"]) == (
        "cover_only",
        "1.50",
        "1000",
    )
    assert limits["open_lots"] == "off"
    app.extensions["ports"].store.close()


def killed(desk: WebDesk, token: str = ADMIN, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = desk.api("post", KILL, token, {"reason": "enough", **body})
    return answer.status_code, answer.get_json()


def test_flatten_by_api(web: WebDesk) -> None:
    web.webhook()
    web.broker.by_hand("NSE:X", 75)
    status, body = killed(web, do="flatten")
    assert (status, body["state"], body["problems"]) == (200, "HALTED", [])
    assert [e["state"] for e in body["exits"]] == [Status.ACCEPTED]
    assert (web.net(), web.broker.net["NSE:X", "INTRADAY"]) == (0, 75)
    with web.store.read() as tx:
        assert (tx.state_change(SCOPE).state, tx.state_change(SCOPE).by) == (TradingState.HALTED, "api:admin")
    assert web.webhook(strategy="b").get_json()["code"] == "trading_state"


def test_cancel_by_api(web: WebDesk) -> None:
    web.broker.fills = False
    order = web.webhook().get_json()["order_id"]
    assert killed(web, do="cancel")[1]["cancelled"] == [order]


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        (TOKEN, {"do": "flatten"}, 403),
        ("wrong", {"do": "flatten"}, 401),
        (ADMIN, {"do": "cancel", "all_positions": "ALL POSITIONS"}, 400),
        (ADMIN, {"do": "flatten", "all_positions": "ALL"}, 400),
        (ADMIN, {"do": "flatten", "reason": ""}, 400),
    ],
)
def test_what_is_refused_changes_nothing(web: WebDesk, token: str, body: dict[str, str], status: int) -> None:
    web.webhook()
    assert killed(web, token, **body)[0] == status
    assert (state(web), web.net()) == (TradingState.ACTIVE, LOT)


def checks(desk: WebDesk, **fields: Any) -> dict[str, dict[str, Any]]:
    alert = {"symbol": "NIFTY", "strikeprice": 24500, "optionType": "CE", "expiry": "WEEKLY", **fields}
    body = desk.api("post", "/api/v1/check", TOKEN, alert).get_json()
    return {check["code"]: check for check in body["checks"]}


def test_a_check_shows_limit_value_and_verdict_of_every_check(web: WebDesk) -> None:
    found = checks(web, action="BUY", lots=2)
    assert list(found) == [c.code for c in CHECKS]
    most = found["max_lots"]
    assert (most["setting"], most["limit"], most["value"], most["ok"]) == (
        "WEBHOOK_MAX_QTY, QTY_CAPS",
        "65 (1 lots)",
        "130",
        False,
    )
    assert "above 1 lots" in most["reason"]
    off = found["min_premium"]
    assert (off["limit"], off["value"], off["ok"], off["reason"]) == (None, None, True, None)


def test_an_exits_check_shows_the_few_that_may_stop_it(web: WebDesk) -> None:
    web.webhook()
    assert list(checks(web, action="EXIT")) == ["trading_state", "market_closed", "signal_age"]
