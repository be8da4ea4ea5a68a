"""A database that gets stuck once the broker was called: the answer is there in time, and it is not an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.domain.deadline import Deadline
from app.domain.outcome import Accepted, Unknown
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service.place_order import PlaceOrder
from app.service.ports import Transaction
from app.store.engine import DEFAULT_BOUND_S
from tests.service.desk import TradingDesk

ANSWERED_WITHIN_S = 2.2
STUCK = StoreUnavailable("the database failed")


class Stuck:
    """A store of which only the first `good` writes come through. Each later one takes all the time that it has."""

    def __init__(self, desk: TradingDesk, good: int, error: Exception) -> None:
        self._desk, self._store, self._good, self._error = desk, desk.store, good, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[Transaction]:
        self._good -= 1
        if self._good < 0:
            clock = self._desk.clock
            clock.advance(deadline.left(clock.monotonic()) if deadline else DEFAULT_BOUND_S)
            raise self._error
        with self._store.write(deadline, queued=queued) as tx:
            yield tx


def stuck(desk: TradingDesk, good: int, error: Exception = STUCK) -> None:
    store: Any = Stuck(desk, good, error)
    desk.service = PlaceOrder(replace(desk.desk, store=store))


@pytest.fixture
def desk() -> TradingDesk:
    made = TradingDesk()
    made.held()
    made.reconcile()
    return made


def answered(desk: TradingDesk, action: str) -> Status:
    """What the alert comes to, in time."""
    began = desk.clock.monotonic()
    status = desk.alert(action).order.status
    assert round(desk.clock.monotonic() - began, 3) <= ANSWERED_WITHIN_S
    return status


@pytest.mark.parametrize(
    ("good", "status"), [(1, Status.IN_DOUBT), (2, Status.ACCEPTED), (3, Status.ACCEPTED)]
)
def test_an_exit_that_was_sent(desk: TradingDesk, good: int, status: Status) -> None:
    """Intent; outcome; what became of the legs; the lease."""
    stuck(desk, good)
    assert (answered(desk, "EXIT"), desk.net()) == (status, 0)


def test_an_exit_that_waits_for_its_legs(desk: TradingDesk) -> None:
    desk.broker.next_protection = [Unknown("lost")]
    stuck(desk, 2)
    assert answered(desk, "EXIT") is Status.EXIT_PENDING


def test_a_late_entry_that_is_taken_back(desk: TradingDesk) -> None:
    desk.broker.next_place = [Accepted("7", sent_late=True)]
    stuck(desk, 2)
    assert answered(desk, "BUY") is Status.ACCEPTED


def test_a_lease_that_cannot_be_freed_for_whatever_reason_is_no_error_of_a_sent_exit(
    desk: TradingDesk,
) -> None:
    stuck(desk, 3, RuntimeError("can't start new thread"))
    assert (answered(desk, "EXIT"), desk.net()) == (Status.ACCEPTED, 0)
