"""The connection is lost during COMMIT: what the database holds decides, and nothing is sent on a guess."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.domain.status import Status
from app.errors import CommitUnknown, StoreUnavailable
from app.service.place_order import PlaceOrder
from app.service.ports import Transaction
from tests.builders import LOT
from tests.service.desk import TradingDesk


class Losing:
    """A store whose next commit of an intent is lost: after it took effect, or before. Afterwards perhaps unreadable."""

    def __init__(self, desk: TradingDesk, *, committed: bool, readable: bool = True) -> None:
        self._store, self._committed, self._readable = desk.store, committed, readable
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self, deadline: Any = None, *, queued: bool = False) -> Iterator[Transaction]:
        try:
            with self._store.write(deadline, queued=queued) as tx:
                seen = _Watched(tx)
                yield seen
                self._undo(seen.put)
        except _UndoneError:
            self.lost = True
            raise CommitUnknown("the connection was lost") from None
        if seen.put and not self.lost:
            self.lost = True
            raise CommitUnknown("the connection was lost")

    def _undo(self, put: bool) -> None:
        if put and not self.lost and not self._committed:
            raise _UndoneError

    @contextmanager
    def read(self, deadline: Any = None) -> Iterator[Transaction]:
        if self.lost and not self._readable:
            raise StoreUnavailable("it is gone")
        with self._store.read(deadline) as tx:
            yield tx


class _UndoneError(Exception):
    pass


class _Watched:
    """Knows whether an order row was put."""

    def __init__(self, tx: Any) -> None:
        self._tx, self.put = tx, False

    def __getattr__(self, name: str) -> Any:
        if name in ("insert_order", "restart_order"):
            self.put = True
        return getattr(self._tx, name)


def losing(*, committed: bool, readable: bool = True, held: bool = False) -> TradingDesk:
    desk = TradingDesk()
    if held:
        desk.held()
    store: Any = Losing(desk, committed=committed, readable=readable)
    desk.service = PlaceOrder(replace(desk.desk, store=store))
    return desk


@pytest.mark.parametrize(("held", "action", "sent"), [(False, "BUY", 1), (True, "EXIT", 2)])
def test_a_commit_that_holds_after_all_is_sent_once(*, held: bool, action: str, sent: int) -> None:
    desk = losing(committed=True, held=held)
    order = desk.alert(action, key="k").order
    assert (order.status, len(desk.broker.ledger)) == (Status.ACCEPTED, sent)
    assert desk.alert(action, key="k").replayed
    assert len(desk.broker.ledger) == sent


@pytest.mark.parametrize(("held", "action", "sent"), [(False, "BUY", 0), (True, "EXIT", 1)])
def test_a_commit_that_does_not_hold_sends_nothing_and_burns_no_key(
    *, held: bool, action: str, sent: int
) -> None:
    desk = losing(committed=False, held=held)
    with pytest.raises(StoreUnavailable):
        desk.alert(action, key="k")
    assert len(desk.broker.ledger) == sent
    assert desk.alert(action, key="k").order.status is Status.ACCEPTED
    assert len(desk.broker.ledger) == sent + 1


@pytest.mark.parametrize("committed", [True, False])
def test_when_nobody_can_say_nothing_is_sent(*, committed: bool) -> None:
    desk = losing(committed=committed, readable=False)
    with pytest.raises(StoreUnavailable):
        desk.alert("BUY", key="k")
    assert desk.broker.ledger == []
    rows = list(desk.store.data.orders.values())
    assert [(r.status, r.quantity) for r in rows] == ([(Status.SENDING, LOT)] if committed else [])


def test_a_no_whose_commit_was_lost_is_a_no_at_the_next_delivery() -> None:
    desk = losing(committed=True)
    with pytest.raises(StoreUnavailable):
        desk.alert("BUY", key="k", lots=5)
    again = desk.alert("BUY", key="k", lots=5)
    assert (again.order.status, again.order.code, again.replayed) == (Status.DENIED, "max_lots", True)
    assert desk.broker.ledger == []
