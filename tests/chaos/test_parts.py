"""The parts besides the kills can say no: each is shown a service or a ledger that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.service import excess, holding
from tests.chaos import exits, machines
from tests.chaos.crowd import alert
from tests.chaos.judge import Verdict
from tests.chaos.machine import StreetMachine
from tests.chaos.tally import tally
from tests.chaos.world import PREFIX
from tests.fake_transaction import FakeTransaction

SENT = alert(1)
TAG = PREFIX + "A" * 16


def row(state: str = "FILLED", broker_order_id: str | None = "1", tag: str = TAG) -> dict[str, Any]:
    return {
        "strategy": SENT.name,
        "state": state,
        "tag": tag,
        "code": None,
        "broker_order_id": broker_order_id,
    }


def line(order_id: str | None = "1", **changes: Any) -> dict[str, Any]:
    return {"kind": "order", "order_id": order_id, "body": {**SENT.means, "orderTag": TAG, **changes}}


def judged(rows: list[dict[str, Any]], lines: list[dict[str, Any]], *, must: bool = True) -> Verdict:
    return tally([SENT], rows, lines, must={SENT.name} if must else set())


def test_one_alert_one_row_one_order_is_right() -> None:
    assert judged([row()], [line()]).clean
    assert judged([row("NOT_PLACED", None)], [], must=False).clean
    assert judged([], [], must=False).clean


@pytest.mark.parametrize(
    ("rows", "lines", "kind"),
    [
        ([row()], [line("1"), line("2")], "doubled"),
        ([row()], [line("1"), line(None)], "doubled"),
        ([row()], [line(qty=130)], "changed"),
        ([], [], "lost"),
        ([row("NOT_PLACED", None)], [], "lost"),
        ([], [line()], "unaccounted"),
        ([row(), row()], [line()], "unaccounted"),
        ([row("NOT_PLACED")], [line()], "unaccounted"),
        ([row("EXPIRED", None)], [line()], "unaccounted"),
        ([row(broker_order_id="2")], [line()], "unaccounted"),
    ],
)
def test_each_kind_of_wrong_is_seen(rows: list[Any], lines: list[Any], kind: str) -> None:
    assert getattr(judged(rows, lines), kind) > 0


def test_the_state_machine_is_right_for_a_while() -> None:
    verdicts = machines.run(StreetMachine, 30, 1, Path("none"))
    assert verdicts[0].why == []
    assert len(verdicts) >= 30


def test_the_state_machine_finds_caps_that_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTransaction, "release", lambda *_, **__: None)
    verdicts = machines.run(StreetMachine, 100, 1, Path("none"), shrink=False)
    assert "counters_are_a_recount" in "".join(verdicts[0].why)


def test_a_crowd_of_exits_is_right_and_finds_exits_that_forget_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = exits.WAYS.index("exits that do not fill")
    (right,) = exits.run(None, [number])
    assert right.why == []
    monkeypatch.setattr(holding, "reduced", lambda held, _: held)
    monkeypatch.setattr(excess, "to_take_back", lambda *_: [])  # which would cancel what is too many
    (wrong,) = exits.run(None, [number])
    assert wrong.doubled
