"""The outbox on a real database: nothing is lost by a crash, nothing is told twice, and floods become few messages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import insert, select

from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Purpose, Scope
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.desk import Desk
from app.service.loss import watch_loss
from app.service.notices import SAME_PAGE, Channel, Notice, Parcel, told
from app.service.records import Moved, Position
from app.store import sql_outbox
from app.store.sql import SqlStore
from app.store.sql_outbox import SqlOutbox
from app.store.tables_notices import notices
from app.telemetry.notify import OutboxNotifier
from app.telemetry.secrets import SECRETS
from tests.builders import a_policy
from tests.fakes import FakeBroker, FakeClock, FakeContracts
from tests.integration.store_rows import LIVE, NOON, SCOPE, Clock, key, order, said

ALL, OTHER = Channel("a", "1 json", ("all",), 20), Channel("b", "2 json", ("pages", "-in_doubt"), 20)
ORDER_ID = "ABCDEFGHIJKLMNOPQRSTUVWX23"


@pytest.fixture
def outbox(store: SqlStore) -> SqlOutbox:
    return SqlOutbox(store.database, SCOPE)


def kept(store: SqlStore) -> list[tuple[str, bool]]:
    with store.read() as tx:
        rows = tx._connection.execute(select(notices.c.code, notices.c.page).order_by(notices.c.id))
        return [(r.code, r.page) for r in rows]


def note(number: int, code: str = "note", *, page: bool = False) -> Notice:
    return Notice(code, f"text {number}", page, f"test:{code}:{number}")


def undone(store: SqlStore, do: Callable[[], None]) -> None:
    """In a transaction that ends in an error."""
    with suppress(ZeroDivisionError), store.write():
        do()
        1 / 0  # noqa: B018


def sent(outbox: SqlOutbox, parcels: list[Parcel]) -> list[str]:
    for parcel in parcels:
        outbox.settle("me", parcel.ref, parcel.channel, sent=True)
    return [p.title for p in parcels]


@pytest.mark.parametrize("profit", [Decimal(-2000), None])
def test_the_page_of_a_days_loss_is_kept_or_undone_with_the_state(
    store: SqlStore, outbox: SqlOutbox, clock: Clock, profit: Decimal | None
) -> None:
    notifier = OutboxNotifier(outbox, clock)
    policy = a_policy(limits=Limits(max_lots=1, max_daily_loss=Decimal(1000)))
    desk = Desk(store, FakeBroker(FakeClock()), FakeContracts([]), clock, SCOPE, policy, notifier)
    held = order(status=Status.FILLED, filled_quantity=75)
    store.ensure_scope(SCOPE)
    with store.write() as tx:
        tx.insert_order(held, said())
    positions = (Position("p", held.ticker, held.product.value, 75, profit=profit),)
    with suppress(ZeroDivisionError), store.write() as tx:
        watch_loss(tx, desk, positions, held.ist_date, tell_unknown=True)
        1 / 0  # noqa: B018
    assert notifier.flush(1)
    assert kept(store) == []
    with store.write() as tx:
        watch_loss(tx, desk, positions, held.ist_date, tell_unknown=True)
    assert kept(store) == [("daily_loss_unknown" if profit is None else "daily_loss", True)]


def test_what_is_told_inside_a_transaction_is_kept_or_undone_with_it(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    notifier = OutboxNotifier(outbox, clock)
    SECRETS.add("a-very-secret-word")  # as a token that came while the service runs
    with store.write() as tx:
        tx.insert_order(order(), said())
        notifier.notify("lost_alert", "said a-very-secret-word aloud", page=True)
    assert kept(store) == [("lost_alert", True)]
    undone(store, lambda: notifier.notify("wrong_verdict", "undone", page=True))
    assert kept(store) == [("lost_alert", True)]
    undone(store, lambda: notifier.notify("key_clash", "what raises itself"))
    assert notifier.flush(10)
    assert kept(store) == [("lost_alert", True), ("key_clash", False)]
    (page, _) = outbox.hand_out([ALL], "me", ())
    assert page.body.startswith("said [redacted] aloud\n(ref ")


def test_a_caller_outside_a_transaction_never_waits_for_the_database(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    notifier = OutboxNotifier(outbox, clock)
    held, told_meanwhile = threading.Event(), threading.Event()

    def hold() -> None:
        with store.write():
            held.set()
            assert told_meanwhile.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(10)
    notifier.notify("breaker_open", "first")  # returns although, on SQLite, the only writer is at work
    told_meanwhile.set()
    other.join()
    assert notifier.flush(10)
    assert kept(store) == [("breaker_open", False)]
    for _ in range(3):
        notifier.notify("preflight_not_ready", "the same words", page=True)
    assert notifier.flush(10)
    assert kept(store)[1:] == [("preflight_not_ready", True)]


def test_the_trail_tells_of_each_order_once_whatever_the_order_of_commits(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    with store.write() as tx:
        tx.insert_order(order(ORDER_ID), said())
    assert outbox.derive(clock.now()) == 0
    with store.write() as tx:
        row = tx.get_order(SCOPE, ORDER_ID)
        assert row is not None
        moved = tx.move(row, Status.ACCEPTED, said(Event.ORDER_ACCEPTED, Status.ACCEPTED), Moved())
        assert moved is not None
        fill = Moved(filled_quantity=75)
        tx.move(moved, Status.FILLED, said(Event.ORDER_FILLED, Status.FILLED), fill)
    clock.pass_(1)
    # An order whose transaction began long ago, and which shows only now.
    with store.write() as tx:
        late = replace(order("LATE"), created_at=NOON, updated_at=NOON, status=Status.DENIED, reason="cap")
        tx.insert_order(replace(late, key=order().key), said(Event.ORDER_DENIED, Status.DENIED))
    assert not outbox.is_idle(clock.now())
    assert outbox.derive(clock.now()) == 3
    assert sorted(kept(store)) == [
        ("order_accepted", False),
        ("order_denied", False),
        ("order_filled", False),
    ]
    assert outbox.derive(clock.now()) == 0
    again = SqlOutbox(store.database, SCOPE)  # the next process looks at all of the last days
    assert again.derive(clock.now()) == 0
    assert len(kept(store)) == 3


@pytest.mark.parametrize("looked_before", ["nobody", "this one", "its predecessor"])
def test_of_more_orders_than_one_look_takes_every_one_is_told(
    store: SqlStore, outbox: SqlOutbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, looked_before: str
) -> None:
    monkeypatch.setattr(sql_outbox, "AT_ONCE", 2)
    if looked_before == "this one":
        outbox.derive(clock.now())
    if looked_before == "its predecessor":
        clock.pass_(3600)  # and a clock was set back: what is new is older than its mark
        SqlOutbox(store.database, SCOPE).derive(clock.now())
    with store.write() as tx:
        for ident in "ABCDE":
            row = order(ident, key=key(ident), status=Status.DENIED, reason="cap")
            tx.insert_order(row, said(Event.ORDER_DENIED, Status.DENIED))
    clock.pass_(3600)  # far behind the overlap of two looks
    told_of = []
    for _ in range(4):
        assert not outbox.is_idle(clock.now())
        told_of.append(outbox.derive(clock.now()))
    assert told_of == [2, 2, 1, 0]
    assert sent(outbox, outbox.hand_out([ALL], "me", ())) == ["PAPER order_denied x5"]
    assert outbox.is_idle(clock.now())


def test_an_exit_that_came_to_nothing_is_told_by_a_process_whose_clock_was_set_back(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    ahead = timedelta(minutes=45)
    store.ensure_scope(SCOPE)
    clock.at += ahead
    outbox.derive(clock.now())
    assert outbox.is_idle(clock.now())
    clock.at -= ahead
    with store.write() as tx:
        row = order(purpose=Purpose.EXIT, created_at=clock.at, updated_at=clock.at)
        tx.insert_order(row, said())
        tx.move(row, Status.REJECTED, said(Event.ORDER_REJECTED, Status.REJECTED), Moved())
    clock.pass_(5)
    assert not outbox.is_idle(clock.now())
    assert outbox.derive(clock.now()) == 1
    assert kept(store) == [("order_rejected", True)]
    sent(outbox, outbox.hand_out([ALL], "me", ()))
    assert outbox.is_idle(clock.now())  # the mark is where the clock is


def test_the_same_words_of_a_page_are_one_page_whatever_the_minute(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    clock.pass_(SAME_PAGE.total_seconds() - clock.now().timestamp() % SAME_PAGE.total_seconds() - 2)
    for _ in range(240):  # for 20 minutes, and over two borders of ten
        outbox.add(told("breaker_open", "the very same", clock.now(), page=True))
        clock.pass_(5)
    assert kept(store) == [("breaker_open", True)] * 2


def test_notes_that_wait_for_the_database_leave_room_for_pages(clock: Clock) -> None:
    class Away(SqlOutbox):
        """Takes nothing until it is back, and then remembers what it is given."""

        def __init__(self) -> None:
            self.back, self.codes = threading.Event(), list[str]()

        def join(self, notice: Notice) -> bool:
            return False

        def add(self, notice: Notice) -> None:
            assert self.back.wait(10)
            self.codes.append(notice.code)

    away = Away()
    notifier = OutboxNotifier(away, clock)
    for number in range(1100):
        notifier.notify("breaker_closed", f"{number}")
    notifier.notify("breaker_open", "no order goes out", page=True)
    away.back.set()
    assert notifier.flush(10)
    assert away.codes[-1] == "breaker_open"
    assert len(away.codes) < 1000


@pytest.mark.parametrize("other", [LIVE, replace(SCOPE, account="XY2")])
def test_the_same_words_are_told_by_each_service_on_one_database_and_once_by_each(
    store: SqlStore, outbox: SqlOutbox, clock: Clock, other: Scope
) -> None:
    def tell(box: SqlOutbox) -> list[str]:
        box.add(told("unprotected", f"order {ORDER_ID} has no stop", clock.now(), page=True))
        clock.pass_(2)
        return sent(box, box.hand_out([ALL], "me", ()))

    for box in (outbox, SqlOutbox(store.database, other)):
        assert [len(tell(box)) for _ in range(2)] == [1, 0]
    clock.pass_(SAME_PAGE.total_seconds())
    assert len(tell(outbox)) == 1


def test_what_the_version_before_has_told_by_its_words_is_sent_and_not_told_again(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    words = told("in_doubt", f"order {ORDER_ID} X: no answer", clock.now(), page=False)
    of_scope = {"mode": SCOPE.mode.value, "account": SCOPE.account}
    row = {name: getattr(words, name) for name in ("key", "code", "subject", "message", "page")}
    with store.database.write() as connection:
        connection.execute(insert(notices).values(**of_scope, **row, at=clock.now()))
    with store.write() as tx:
        doubted = order(ORDER_ID)
        tx.insert_order(doubted, said())
        tx.move(doubted, Status.IN_DOUBT, said(Event.ORDER_IN_DOUBT, Status.IN_DOUBT), Moved())
    outbox.derive(clock.now())
    assert sent(outbox, outbox.hand_out([ALL], "me", ())) == ["PAPER in_doubt"]


def test_a_doubt_is_told_by_its_finder_or_by_the_trail_and_never_by_both(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    for ident, finder_first in (
        (ORDER_ID, True),
        (ORDER_ID[::-1].replace("3", "A").replace("2", "B"), False),
    ):
        words = told("in_doubt", f"order {ident} X: no answer", clock.now(), page=False)
        if finder_first:
            outbox.add(words)
        with store.write() as tx:
            digest = order().key.__class__(order().key.kind, ident, "b")
            row = order(ident, tag=ident[:8], key=digest)
            tx.insert_order(row, said())
            tx.move(row, Status.IN_DOUBT, said(Event.ORDER_IN_DOUBT, Status.IN_DOUBT), Moved())
        outbox.derive(clock.now())
        if not finder_first:
            outbox.add(words)
    assert kept(store) == [("in_doubt", False)] * 2


def test_a_stop_that_is_lost_again_is_told_again_by_its_finder_or_by_the_trail(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    row = order(ORDER_ID, key=key("exit"), purpose=Purpose.EXIT)
    with store.write() as tx:
        tx.insert_order(row, said())
    steps = (("both", 1), ("trail", 2), ("words", 3), ("both", 4))
    for number, (who, told_so_far) in enumerate(steps, 1):
        clock.pass_(SAME_PAGE.total_seconds())
        if who != "trail":  # its finder dies before it has said so
            outbox.add(told("unprotected", f"legs are off (exit {ORDER_ID})", clock.now(), page=True))
            clock.pass_(2)
        if who != "words":  # or before it has written it down
            with store.write() as tx:
                tx.record(row, replace(said(Event.LEG_UNPROTECTED, None), at=clock.now()))
        outbox.derive(clock.now())
        pages = [code for code, page in kept(store) if page]
        assert pages == ["unprotected"] * told_so_far, number


def test_a_change_of_the_trading_state_is_told_from_its_history_and_pages(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    store.ensure_scope(SCOPE)
    assert outbox.derive(clock.now()) == 0  # the first start is nobody's news
    with store.write() as tx:
        tx.set_trading_state(SCOPE, TradingState.HALTED, "cli:me", "going away")
        tx.set_trading_state(SCOPE, TradingState.ACTIVE, "cli:me", "back")
    assert not outbox.is_idle(clock.now())
    assert outbox.derive(clock.now()) == 2
    assert kept(store) == [("trading_state", True), ("trading_state", False)]
    assert outbox.derive(clock.now()) == 0


def test_pages_go_at_once_and_notes_of_one_code_once_a_minute(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1))
    assert sent(outbox, outbox.hand_out([ALL], "me", ())) == ["PAPER note"]
    for number in range(2, 22):
        outbox.add(note(number))
    outbox.add(note(1, "other"))
    outbox.add(note(1, "fire", page=True))
    clock.pass_(1)
    assert sent(outbox, outbox.hand_out([ALL], "me", ())) == ["PAPER PAGE fire", "PAPER other"]
    outbox.add(note(2, "fire", page=True))
    assert sent(outbox, outbox.hand_out([ALL], "me", ())) == ["PAPER PAGE fire"]
    clock.pass_(57)
    assert outbox.hand_out([ALL], "me", ()) == []
    clock.pass_(3)
    (group,) = outbox.hand_out([ALL], "me", ())
    assert group.title == "PAPER note x20"
    assert group.body.startswith("20 times:\ntext 2\ntext 3\n")
    assert "… and 8 more" in group.body
    sent(outbox, [group])
    assert outbox.is_idle(clock.now()) is False  # nothing was derived by this one yet
    outbox.derive(clock.now())
    assert outbox.is_idle(clock.now())


def test_each_channel_gets_what_it_wants(outbox: SqlOutbox) -> None:
    outbox.add(note(1))
    outbox.add(note(1, "in_doubt", page=True))
    outbox.add(note(1, "fire", page=True))
    found = outbox.hand_out([ALL, OTHER], "me", ())
    assert {(p.channel, p.title) for p in found} == {
        ("a", "PAPER note"),
        ("a", "PAPER PAGE in_doubt"),
        ("a", "PAPER PAGE fire"),
        ("b", "PAPER PAGE fire"),
    }


def test_a_dead_channel_holds_up_no_other_and_gets_all_pages_once_it_is_back(
    outbox: SqlOutbox, clock: Clock
) -> None:
    for number in range(3):
        outbox.add(note(number, f"fire{'abc'[number]}", page=True))
    pauses = []
    for parcel in outbox.hand_out([ALL, OTHER], "me", ()):
        outbox.settle("me", parcel.ref, parcel.channel, sent=parcel.channel == "b")
    outbox.add(note(9, "later", page=True))
    (other,) = (p for p in outbox.hand_out([ALL, OTHER], "me", ()) if p.channel == "b")
    assert other.title == "PAPER PAGE later"
    sent(outbox, [other])
    for _ in range(8):
        began = clock.now()
        while not (again := outbox.hand_out([ALL], "me", ())):
            clock.pass_(1)
        pauses.append((clock.now() - began).total_seconds())
        for parcel in again:
            outbox.settle("me", parcel.ref, parcel.channel, sent=False)
    assert pauses == [5, 10, 20, 40, 80, 120, 120, 120]
    clock.pass_(120)
    titles = sent(outbox, outbox.hand_out([ALL], "me", ()))
    assert sorted(titles) == [f"PAPER PAGE {c}" for c in ("firea", "fireb", "firec", "later")]
    assert outbox.hand_out([ALL], "me", ()) == []


def test_a_flood_stays_within_the_channels_minute_and_keeps_room_for_pages(
    outbox: SqlOutbox, clock: Clock
) -> None:
    narrow = replace(ALL, per_minute=8)
    for letter in "abcdefghijklmnop":
        outbox.add(note(1, f"note_{letter}"))
    first = sent(outbox, outbox.hand_out([narrow], "me", ()))
    assert len(first) == 6
    assert outbox.hand_out([narrow], "me", ()) == []
    for letter in "abc":
        outbox.add(note(1, f"fire_{letter}", page=True))
    assert len(sent(outbox, outbox.hand_out([narrow], "me", ()))) == 2
    assert outbox.hand_out([narrow], "me", ()) == []
    clock.pass_(61)
    titles = sent(outbox, outbox.hand_out([narrow], "me", ()))
    assert titles[0] == "PAPER PAGE fire_c"
    assert len(titles) == 6


def test_what_a_dead_sender_had_claimed(outbox: SqlOutbox, clock: Clock) -> None:
    outbox.add(note(1, "fire", page=True))
    outbox.add(note(1, "smoke", page=True))
    outbox.add(note(1))
    fire, smoke, plain = sorted(outbox.hand_out([ALL], "dead", ()), key=lambda p: p.title[6:])
    assert outbox.hand_out([ALL], "dead", ()) == []
    clock.pass_(15)
    # The dead one's receipts say that `fire` went out; of the other page nobody knows, so it goes again as it was.
    (again,) = outbox.hand_out([ALL], "heir", [fire.ref])
    assert (again.ref, again.title, again.body) == (smoke.ref, smoke.title, smoke.body)
    sent(outbox, [again])
    assert outbox.hand_out([ALL], "heir", [fire.ref]) == []
    outbox.settle("dead", plain.ref, plain.channel, sent=True)  # too late to matter
    assert outbox.hand_out([ALL], "heir", ()) == []


def test_a_forgotten_change_of_the_trading_state_is_not_told_again(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    store.ensure_scope(SCOPE)
    with store.write() as tx:
        tx.set_trading_state(SCOPE, TradingState.HALTED, "cli:me", "going away")
    assert outbox.derive(clock.now()) == 1
    sent(outbox, outbox.hand_out([ALL], "me", ()))
    clock.at += timedelta(days=31)
    assert outbox.purge() == 1
    assert outbox.derive(clock.now()) == 0
    assert outbox.is_idle(clock.now())
    assert SqlOutbox(store.database, SCOPE).derive(clock.now()) == 0


def test_old_notices_are_forgotten(store: SqlStore, outbox: SqlOutbox, clock: Clock) -> None:
    outbox.add(note(1))
    sent(outbox, outbox.hand_out([ALL], "me", ()))
    clock.at += timedelta(days=31)
    outbox.add(note(2))
    assert outbox.purge() == 1
    assert kept(store) == [("note", False)]
