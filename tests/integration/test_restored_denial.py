"""A restored database, an alert whose order it has forgotten, and a "no" before the first pass."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NotReconciled
from app.service.control import Control
from tests.wire_desk import Desks


def test_a_no_before_the_first_pass_does_not_hide_the_keys_order_at_the_broker(
    desks: Desks, tmp_path: Path
) -> None:
    before = desks.start()
    before.pass_on()
    entry = before.bought()
    before.pass_on(1)
    restored = tmp_path / "restored"
    restored.mkdir()
    name = "orders.sqlite3"
    with closing(sqlite3.connect(tmp_path / name)) as one, closing(sqlite3.connect(restored / name)) as other:
        one.backup(other)
    alert = before.an_alert("EXIT", key="out")
    out = before.deliver(alert).order
    desks.clock.advance(5)
    desk = desks.start(directory=restored, first_pass=True)
    Control(desk.desk).set_state(TradingState.HALTED, "operator", "restored")
    with pytest.raises(NotReconciled):  # and not DENIED under the tag that the broker's row has
        desk.deliver(alert)
    desk.pass_on(1)
    desk.pass_on(1)
    assert {(o.tag, o.status, o.code) for o in desk.rows()} == {
        (entry.tag, Status.FILLED, None),
        (out.tag, Status.FILLED, "restored"),
    }
    answer = desk.deliver(alert)
    assert (answer.replayed, answer.order.tag, desk.net()) == (True, out.tag, 0)
