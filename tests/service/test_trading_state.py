"""Who may change the trading state, what resuming acknowledges, and what each state lets through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain.order import Scope, Side
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import InvalidAlert
from app.service.control import Control
from app.service.place_order import Answer
from app.service.records import Stranger
from tests import fake_store
from tests.builders import LOT, NOW, SCOPE
from tests.fake_transaction import FakeTransaction
from tests.service.desk import TradingDesk


def a_stranger(number: int) -> Stranger:
    return Stranger(f"{number:014d}", "NSE:X", Side.BUY, LOT, "INTRADAY", None, NOW, NOW)


def test_resuming_acknowledges_the_strangers_that_it_shows() -> None:
    desk = TradingDesk()
    control = Control(desk.desk)
    control.set_state(TradingState.HALTED, "cli:me", "going away")
    with desk.store.write() as tx:
        tx.add_stranger(SCOPE, a_stranger(1))
        tx.add_stranger(SCOPE, a_stranger(2))
    assert control.set_state(TradingState.REDUCING, "cli:me", "half way").acknowledged == ()
    with desk.store.read() as tx:
        assert len(tx.strangers(SCOPE, acknowledged=False)) == 2
    done = control.set_state(TradingState.ACTIVE, "cli:you", "looked at both")
    assert [s.broker_order_id for s in done.acknowledged] == ["00000000000001", "00000000000002"]
    with desk.store.read() as tx:
        assert {s.acknowledged_by for s in tx.strangers(SCOPE)} == {"cli:you"}
        assert tx.trading_state(SCOPE) is TradingState.ACTIVE
        history = [(c.state, c.by, c.reason) for c in tx.state_history(SCOPE, 3)]
    assert history == [
        (TradingState.ACTIVE, "cli:you", "looked at both"),
        (TradingState.REDUCING, "cli:me", "half way"),
        (TradingState.HALTED, "cli:me", "going away"),
    ]


def test_a_stranger_that_comes_up_while_resuming_is_not_acknowledged_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late(FakeTransaction):
        """Another instance's reconciliation commits one between the two statements."""

        def acknowledge_strangers(self, scope: Scope, by: str) -> int:
            self.add_stranger(scope, a_stranger(2))
            return super().acknowledge_strangers(scope, by)

    desk = TradingDesk()
    control = Control(desk.desk)
    control.set_state(TradingState.HALTED, "cli:me", "going away")
    with desk.store.write() as tx:
        tx.add_stranger(SCOPE, a_stranger(1))
    monkeypatch.setattr(fake_store, "FakeTransaction", Late)
    with pytest.raises(InvalidAlert, match="look again"):
        control.set_state(TradingState.ACTIVE, "cli:me", "looked at one")
    monkeypatch.undo()
    assert desk.store.data.states[SCOPE] is TradingState.HALTED
    with desk.store.read() as tx:
        assert [s.acknowledged_by for s in tx.strangers(SCOPE)] == [None]


def test_the_same_state_again_is_no_change_and_tells_nobody() -> None:
    desk = TradingDesk()
    control = Control(desk.desk)
    assert control.set_state(TradingState.HALTED, "cli:me", "going away").changed
    assert desk.notifier.notes == ["trading_state"]
    again = control.set_state(TradingState.HALTED, "cli:you", "me too")
    assert (again.changed, again.now.by, again.now.reason) == (False, "cli:me", "going away")
    assert desk.notifier.notes == ["trading_state"]


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        (TradingState.ACTIVE, {"entry", "exit", "admin's exit"}),
        (TradingState.REDUCING, {"exit", "admin's exit"}),
        (TradingState.HALTED, {"admin's exit"}),
    ],
)
def test_what_each_state_lets_through(state: TradingState, passes: set[str]) -> None:
    asked: dict[str, Callable[[TradingDesk], Answer]] = {
        "entry": lambda d: d.alert(),
        "exit": lambda d: d.alert("EXIT"),
        "admin's exit": lambda d: d.alert("EXIT", client="admin"),
    }
    for what, ask in asked.items():
        desk = TradingDesk()
        desk.held()
        Control(desk.desk).set_state(state, "cli:me", "a test of it")
        order = ask(desk).order
        assert (order.status is Status.ACCEPTED) == (what in passes), (state, what, order)
        assert len(desk.sent()) == (2 if what in passes else 1)
