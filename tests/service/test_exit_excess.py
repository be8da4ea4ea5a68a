"""Exits that rest at the broker while their position goes another way: taken back before they open the other side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import Accepted, Outcome, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import OutOfTime, StoreUnavailable
from app.service import excess
from app.service.flatten import KillSwitch
from app.service.reconcile import Reconcile
from app.service.records import BookStatus
from tests.builders import LOT, SCOPE, a_contract, a_policy
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import position_id

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def resting(desk: TradingDesk, client: str = "default") -> Order:
    """An exit that the broker has and that does not fill; what comes after it does."""
    desk.broker.fills = False
    out = desk.alert("EXIT", client=client).order
    desk.broker.fills = True
    assert out.status is Status.ACCEPTED
    return out


def works(desk: TradingDesk, order: Order) -> bool:
    return next(r.is_working for r in desk.broker.book if r.tag == order.tag)


def passes(desk: TradingDesk, minutes: float) -> None:
    for _ in range(int(minutes * 12)):
        desk.clock.advance(5)
        desk.reconcile()


def fills_a_part(desk: TradingDesk, order: Order, quantity: int) -> None:
    """`quantity` of an order trades; the rest goes on resting."""
    at = next(n for n, r in enumerate(desk.broker.book) if r.tag == order.tag)
    whole, row = desk.broker.book[at].quantity, desk.broker.book[at]
    desk.broker.book[at] = replace(row, quantity=quantity)
    desk.broker.fill(row.broker_order_id)
    row = replace(desk.broker.book[at], quantity=whole, status=BookStatus.PENDING)
    desk.broker.book[at] = row if quantity < whole else replace(row, status=BookStatus.FILLED)


def a_round_trip_by_hand(desk: TradingDesk) -> None:
    """From here on every pass reads the trades of the day."""
    for quantity in (LOT, -LOT):
        desk.broker.by_hand(TICKER, quantity)


def taken_back(desk: TradingDesk, order: Order) -> tuple[bool, int, int]:
    """Whether it works still, how often a cancel was tried, and the pages about it."""
    said = desk.events(order).count(Event.ENTRY_CANCEL)
    tried = max(0, said - 1)  # the first says that it is to go
    return works(desk, order), tried, desk.notifier.pages.count("exit_cut")


def by_hand(desk: TradingDesk) -> None:
    desk.broker.by_hand(TICKER, -LOT)


def by_a_stop(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.trigger_stop(position_id())


def by_a_hand_that_is_in_again(desk: TradingDesk) -> None:
    """The net is what it was, and none of it is ours."""
    desk.broker.by_hand(TICKER, -LOT)
    desk.broker.by_hand(TICKER, LOT)


@pytest.mark.parametrize("closed", [by_hand, by_a_stop, by_a_hand_that_is_in_again])
def test_an_exit_goes_at_once_when_the_trades_of_today_say_that_its_position_has(
    desk: TradingDesk, closed: Callable[[TradingDesk], None]
) -> None:
    desk.held()
    out = resting(desk)
    closed(desk)
    left = desk.net()
    passes(desk, 1)
    assert taken_back(desk, out) == (False, 1, 1)
    assert (desk.row(out).status, desk.owned(), desk.net()) == (Status.CANCELLED, {}, left)
    assert "taken back" in (desk.row(out).reason or "")


def test_an_empty_list_of_positions_takes_an_exit_back_after_minutes_only(desk: TradingDesk) -> None:
    desk.held()
    out = resting(desk)
    shown = desk.positions_hidden()
    passes(desk, 4.9)
    desk.broker.net.update(shown)
    passes(desk, 1)
    desk.broker.net.clear()
    passes(desk, 4.9)
    assert taken_back(desk, out) == (True, 0, 0)
    passes(desk, 0.5)
    assert taken_back(desk, out) == (False, 1, 1)


def test_a_younger_exit_has_its_own_minutes(desk: TradingDesk) -> None:
    """What it is to close was bought seconds ago, and shows in no list yet: it is the older one that has gone."""
    desk.held(client="anna")
    old = resting(desk, client="anna")
    shown = desk.positions_hidden()
    passes(desk, 4.9)
    desk.broker.net.update(shown)
    desk.held(client="ben")
    young = resting(desk, client="ben")
    desk.broker.net.clear()
    passes(desk, 0.5)
    assert (works(desk, old), works(desk, young)) == (False, True)


def test_one_whose_entry_has_just_filled_stays_though_a_stop_has_filled_today(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.trigger_stop(position_id())
    passes(desk, 1)
    desk.held()
    out = resting(desk)
    shown = desk.positions_hidden()  # the list is of before that entry
    passes(desk, 4)
    desk.broker.net.update(shown)
    passes(desk, 1)
    assert taken_back(desk, out) == (True, 0, 0)


@pytest.mark.parametrize("part", [LOT, 2 * LOT])
@pytest.mark.parametrize(
    ("read", "times"), [("positions", 1), ("order_book", 2), ("trades", 1), ("positions", 2)]
)
@pytest.mark.parametrize("traded", [True, False])
def test_what_fills_while_a_pass_reads_is_no_excess(
    desk: TradingDesk, read: str, times: int, part: int, *, traded: bool
) -> None:
    """Right before any read of a pass that comes after its first; a hand's trades of today make it read them too."""
    desk.held(lots=2)
    out = resting(desk)
    if traded:
        a_round_trip_by_hand(desk)
    reads: list[int] = []

    def fill() -> None:
        reads.append(1)
        if len(reads) == times:
            fills_a_part(desk, out, part)

    desk.broker.on[read] = fill
    passes(desk, 1)
    assert taken_back(desk, out)[1:] == (0, 0)
    assert desk.net() == 2 * LOT - desk.row(out).filled_quantity


def test_a_book_that_lags_behind_the_trades_takes_no_good_exit(desk: TradingDesk) -> None:
    desk.held(lots=2)
    out = resting(desk)
    a_round_trip_by_hand(desk)
    old = next(r for r in desk.broker.book if r.tag == out.tag)
    fills_a_part(desk, out, LOT)
    at = desk.broker.book.index(next(r for r in desk.broker.book if r.tag == out.tag))
    desk.broker.book[at] = old
    passes(desk, 1)
    assert taken_back(desk, out) == (True, 0, 0)


def test_the_newest_go_until_the_rest_fits(desk: TradingDesk) -> None:
    exits = []
    for client in ("anna", "ben", "carl"):
        desk.held(client=client)
        exits.append(resting(desk, client=client))
        desk.clock.advance(1)
    desk.broker.by_hand(TICKER, -2 * LOT)
    passes(desk, 1)
    assert [works(desk, out) for out in exits] == [True, False, False]
    assert desk.notifier.pages.count("exit_cut") == 2


def test_one_in_doubt_counts_and_is_not_cancelled(desk: TradingDesk) -> None:
    desk.held(client="anna")
    desk.held(client="ben")
    working = resting(desk, client="ben")
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    doubt = desk.alert("EXIT", client="anna").order
    passes(desk, 0.5)
    assert (doubt.status, works(desk, working)) == (Status.IN_DOUBT, True)
    by_hand(desk)
    passes(desk, 0.5)
    assert taken_back(desk, working) == (False, 1, 1)
    assert Event.ENTRY_CANCEL not in desk.events(doubt)


def test_exits_of_clients_on_both_sides_stay(desk: TradingDesk) -> None:
    """The broker's net is zero, and each of them closes what its client holds."""
    desk.held("BUY", client="anna")
    out = resting(desk, client="anna")
    desk.held("SELL", client="ben")
    passes(desk, 6)
    assert (desk.net(), taken_back(desk, out)) == (0, (True, 0, 0))


def test_one_that_the_kill_switch_has_sent_goes_too(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.fills = False
    (out, *_) = KillSwitch(desk.desk).flatten("cli:me", "enough").exits
    desk.broker.fills = True
    by_hand(desk)
    passes(desk, 1)
    assert taken_back(desk, out) == (False, 1, 1)
    assert desk.store.data.states[SCOPE] is TradingState.HALTED


def test_a_second_exit_that_the_broker_had_after_all_goes_at_once(desk: TradingDesk) -> None:
    """Called absent, and its follower has sold all since: what is held and what the broker shows agree that it is too many."""
    desk.held()
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    late = desk.alert("EXIT").order
    desk.proven_absent(late)
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.net() == 0
    desk.broker.fills = False
    desk.broker.take(desk.row(late).ticket())
    passes(desk, 0.5)
    assert taken_back(desk, late) == (False, 1, 1)


@pytest.mark.parametrize("failure", [Unknown("lost"), RuntimeError("boom")])
def test_a_cancel_that_failed_is_tried_again_and_the_pass_goes_on(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch, failure: Unknown | Exception
) -> None:
    desk.held()
    out = resting(desk)
    by_hand(desk)
    cancel, tries = desk.broker.cancel, list[str]()

    def fails_twice(ident: str) -> Outcome:
        tries.append(ident)
        if len(tries) > 2:
            return cancel(ident)
        if isinstance(failure, Exception):
            raise failure
        return failure

    monkeypatch.setattr(desk.broker, "cancel", fails_twice)
    for _ in range(5):
        desk.clock.advance(5)
        assert desk.reconcile().asked_broker
    assert taken_back(desk, out) == (False, 3, 1)


def test_an_instance_that_has_lost_the_reconciliation_cancels_nothing(desk: TradingDesk) -> None:
    desk.held()
    out = resting(desk)
    by_hand(desk)
    assert desk.store.take_lock("reconcile", "me", timedelta(minutes=1), Deadline(0))
    reads: list[int] = []

    def lose() -> None:
        reads.append(1)
        if len(reads) == 2:  # the last one before the cancel
            del desk.store.data.locks["reconcile"]

    desk.broker.on["positions"] = lose
    with pytest.raises(OutOfTime):
        Reconcile(desk.desk, lease=("reconcile", "me"))()
    assert (taken_back(desk, out), len(reads)) == ((True, 0, 0), 2)


def test_a_cancel_that_crossed_the_fill_is_told_and_harms_nothing(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.held()
    out = resting(desk)
    by_hand(desk)
    cancel = desk.broker.cancel

    def crossed(ident: str) -> Outcome:
        desk.broker.fill(ident)
        return cancel(ident)

    monkeypatch.setattr(desk.broker, "cancel", crossed)
    passes(desk, 1)
    assert not isinstance(cancel(out.broker_order_id or ""), Accepted)
    assert (desk.row(out).status, desk.row(out).reason) == (Status.FILLED, None)
    assert taken_back(desk, out) == (False, 1, 1)


def test_one_that_goes_is_told_though_nothing_can_be_recorded_after_it(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.held()
    out = resting(desk)
    by_hand(desk)

    def lost(*_: object) -> None:
        raise StoreUnavailable("lost")

    with monkeypatch.context() as patched:
        patched.setattr(excess, "record_cancel", lost)
        with pytest.raises(StoreUnavailable):
            desk.reconcile()
    passes(desk, 1)
    assert (works(desk, out), desk.notifier.pages) == (False, ["exit_cut"])
    assert Event.ENTRY_CANCEL in desk.events(out)


def test_the_smallest_that_will_do_goes_and_not_the_newest(desk: TradingDesk) -> None:
    desk.held(client="anna")
    small = resting(desk, client="anna")
    desk.clock.advance(1)
    desk.held(client="ben", lots=3)
    large = resting(desk, client="ben")
    by_hand(desk)
    passes(desk, 1)
    assert (works(desk, small), works(desk, large)) == (False, True)
