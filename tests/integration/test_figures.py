"""The cluster's figures, read from rows that stand in a database."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Order, Protection, Purpose, Side
from app.domain.status import Status
from app.service.audit_check import VERIFY_JOB
from app.service.caps import caps_of
from app.service.figures import CapUse, Figures, Leg, OrderCount
from app.service.notices import Channel, Notice
from app.service.records import Moved
from app.store.sql import SqlStore
from app.store.sql_figures import figures
from app.store.sql_job_runs import SqlJobRuns
from app.store.sql_outbox import SqlOutbox
from tests.integration.store_rows import LIVE, NOON, SCOPE, Clock, insert, key, order, said

LIMITS = Limits(max_lots=1, max_orders_per_day=300)


def read(store: SqlStore, clock: Clock) -> Figures:
    return figures(store.database, SCOPE, LIMITS, Deadline(clock.monotonic() + 1))


def test_without_orders_everything_is_nothing(store: SqlStore, clock: Clock) -> None:
    store.ensure_scope(SCOPE)
    found = read(store, clock)
    assert (found.orders, found.in_doubt, found.oldest_doubt_s, found.unaccounted) == ((), 0, None, 0)
    assert (found.unprotected, found.trading_state, found.last_pass_s) == (0, "ACTIVE", None)
    assert found.caps == (CapUse("orders_day", 0, 300),)


def test_doubts_and_senders_that_are_gone(store: SqlStore, clock: Clock) -> None:
    insert(
        store,
        order("A", key=key("a"), status=Status.IN_DOUBT, sent_at=NOON - timedelta(seconds=50)),
        order("B", key=key("b"), status=Status.IN_DOUBT, sent_at=NOON - timedelta(seconds=20)),
        order("C", key=key("c"), answer_by=NOON - timedelta(seconds=1)),
        order("D", key=key("d"), answer_by=NOON + timedelta(seconds=1)),
        order("E", key=key("e"), status=Status.NEEDS_REVIEW),
        order("F", key=key("f"), status=Status.EXIT_PENDING, purpose=Purpose.EXIT),
        order("G", key=key("g"), status=Status.IN_DOUBT, scope=LIVE, sent_at=NOON - timedelta(hours=1)),
    )
    found = read(store, clock)
    assert (found.in_doubt, found.oldest_doubt_s) == (2, 50)
    assert (found.unaccounted, found.needs_review, found.exit_pending) == (1, 1, 1)


def test_orders_of_the_day_by_state_product_and_strategy(store: SqlStore, clock: Clock) -> None:
    yesterday = order("O", key=key("o")).ist_date - timedelta(days=1)
    insert(
        store,
        order("A", key=key("a"), status=Status.FILLED),
        order("B", key=key("b"), status=Status.FILLED),
        order("C", key=key("c"), status=Status.DENIED, strategy=""),
        order("D", key=key("d"), status=Status.FILLED, ist_date=yesterday),
        order("E", key=key("e"), status=Status.FILLED, scope=LIVE),
    )
    assert read(store, clock).orders == (
        OrderCount("FILLED", "INTRADAY", "orb", 2),
        OrderCount("DENIED", "INTRADAY", "", 1),
    )


def test_a_missing_stop_counts_while_its_position_is_held(store: SqlStore, clock: Clock) -> None:
    missing = {"status": Status.FILLED, "protection": Protection.MISSING, "filled_quantity": 75}
    insert(store, order("A", key=key("a"), **missing), order("B", key=key("b"), ticker="NSE:X", **missing))
    assert read(store, clock).unprotected == 2
    insert(
        store,
        order(
            "C", key=key("c"), ticker="NSE:X", status=Status.FILLED, filled_quantity=75, side=Side.SELL,
            purpose=Purpose.EXIT, protection=Protection.NONE,
        ),
    )  # fmt: skip
    assert read(store, clock).unprotected == 1


YESTERDAY, TODAY = NOON - timedelta(days=1), NOON


def bought(ident: str, at: datetime, protection: Protection, **changed: Any) -> Order:
    """75 filled, as long after the hour as its name comes after A."""
    filled_at = at + timedelta(minutes=ord(ident) - ord("A"))
    values = {
        "status": Status.FILLED,
        "filled_quantity": 75,
        "protection": protection,
        "filled_at": filled_at,
    }
    values |= {"created_at": at, "ist_date": at.date(), "product": Product.MARGIN} | changed
    return order(ident, key=key(ident.lower()), **values)


def sold(ident: str, at: datetime, **changed: Any) -> Order:
    return bought(ident, at, Protection.NONE, side=Side.SELL, purpose=Purpose.EXIT, **changed)


def test_an_entry_that_is_gone_says_nothing_of_what_was_bought_after_it(
    store: SqlStore, clock: Clock
) -> None:
    insert(store, bought("A", YESTERDAY, Protection.MISSING), sold("B", YESTERDAY))
    assert read(store, clock).unprotected == 0
    insert(store, bought("C", TODAY, Protection.SEEN))
    assert read(store, clock).unprotected == 0
    insert(store, bought("D", TODAY, Protection.MISSING, filled_quantity=25))
    assert read(store, clock).unprotected == 1


def test_what_was_carried_without_a_stop_counts_until_it_is_protected_or_gone(
    store: SqlStore, clock: Clock
) -> None:
    carried = bought("A", YESTERDAY, Protection.MISSING)
    insert(store, carried)
    assert read(store, clock).unprotected == 1
    insert(store, bought("B", TODAY, Protection.SEEN))
    assert read(store, clock).unprotected == 1  # the other half of what is held
    insert(store, sold("C", TODAY, filled_quantity=50))
    assert read(store, clock).unprotected == 1  # 25 of it are
    with store.write() as tx:
        tx.record(carried, said(Event.PROTECTION_SEEN, Status.FILLED), Moved(protection=Protection.SEEN))
    assert read(store, clock).unprotected == 0
    with store.write() as tx:
        tx.record(
            carried, said(Event.PROTECTION_MISSING, Status.FILLED), Moved(protection=Protection.MISSING)
        )
    insert(store, sold("D", TODAY, filled_quantity=25))
    assert read(store, clock).unprotected == 0


def test_no_missing_stop_is_hidden(store: SqlStore, clock: Clock) -> None:
    """By an entry that asked for none, by one placed later and filled before, by another client's, on another side."""
    insert(
        store,
        bought("A", YESTERDAY, Protection.MISSING),
        sold("B", YESTERDAY),
        bought("C", TODAY, Protection.NONE),
        bought("D", TODAY, Protection.MISSING, ticker="NSE:X", filled_at=TODAY + timedelta(hours=1)),
        bought("E", TODAY + timedelta(minutes=5), Protection.SEEN, ticker="NSE:X"),
        sold("F", TODAY, ticker="NSE:X"),
        bought("G", YESTERDAY, Protection.MISSING, ticker="NSE:Y"),
        bought("H", TODAY, Protection.SEEN, ticker="NSE:Y", client="other"),
        bought("I", YESTERDAY, Protection.MISSING, ticker="NSE:Z", filled_quantity=150),
        bought("J", TODAY, Protection.SEEN, ticker="NSE:Z", side=Side.SELL),
    )
    assert read(store, clock).unprotected == 4


def test_a_failed_job_stays_failed_until_another_run_has_ended(store: SqlStore, clock: Clock) -> None:
    runs = SqlJobRuns(store.database, SCOPE)

    def failed() -> list[bool]:
        return [job.failed for job in read(store, clock).jobs]

    runs.begin("seal", "", "me", None, timedelta(0))
    runs.end("seal", "", "me", "StoreUnavailable: away", ok=False)
    assert failed() == [True]
    runs.begin("seal", "", "me", None, timedelta(0))
    assert failed() == [True]
    (run,) = runs.last()
    assert (run.ok, run.result) == (None, "")  # to a person it is simply running
    runs.end("seal", "", "me", "nothing changed", ok=True)
    assert failed() == [False]
    runs.begin("seal", "", "me", None, timedelta(0))
    assert failed() == [False]


def test_a_broken_audit_stays_broken_until_a_verification_finds_nothing(
    store: SqlStore, clock: Clock
) -> None:
    runs = SqlJobRuns(store.database, SCOPE)

    def verified(result: str, *, ok: bool = False) -> list[bool]:
        """While it runs, and after it."""
        runs.begin(VERIFY_JOB, "", "me", None, timedelta(0))
        meanwhile = read(store, clock).audit_broken
        runs.end(VERIFY_JOB, "", "me", result, ok=ok)
        return [meanwhile, read(store, clock).audit_broken]

    assert verified("StoreUnavailable: away") == [False, False]
    assert verified("AuditBroken: 1 faults") == [False, True]
    assert verified("StoreUnavailable: away") == [True, True]
    assert verified("StoreUnavailable: " + 3000 * "x") == [True, True]
    assert verified("StoreUnavailable: again") == [True, True]
    (run,) = runs.last()
    assert run.result == "AuditBroken: 1 faults; since then StoreUnavailable: again"
    assert verified("AuditBroken: 2 faults") == [True, True]
    assert verified("whole: 1 orders", ok=True) == [True, False]
    assert verified("StoreUnavailable: away") == [False, False]


def test_a_page_waits_from_the_moment_it_was_told(store: SqlStore, clock: Clock) -> None:
    """Also while nobody hands notices to channels, and so nobody knows which of them wants it."""
    outbox = SqlOutbox(store.database, SCOPE)
    channel = Channel("1", "tgram 1", ("pages",), 20)

    def waits() -> float:
        return read(store, clock).oldest_page_waiting_s

    outbox.add(Notice("order_filled", "no page", page=False, key="0"))
    clock.pass_(60)
    outbox.add(Notice("audit_broken", "a page", page=True, key="1"))
    clock.pass_(3 * 3600)
    assert waits() == 3 * 3600
    (parcel,) = outbox.hand_out([channel], "me", ())
    clock.pass_(1)
    assert waits() == 3 * 3600 + 1
    outbox.add(Notice("audit_broken", "one more", page=True, key="2"))
    clock.pass_(5)
    outbox.settle("me", parcel.ref, channel.id, sent=True)
    assert waits() == 5
    outbox.hand_out([], "me", ())
    assert waits() == 0  # no channel wants it


def test_what_a_fill_cost_against_the_price_that_its_order_went_by(store: SqlStore, clock: Clock) -> None:
    filled = {"status": Status.FILLED, "filled_quantity": 75, "ltp": Decimal(100)}
    insert(
        store,
        order("A", key=key("a"), fill_price=Decimal("101.5"), **filled),
        order("B", key=key("b"), fill_price=Decimal("101.5"), side=Side.SELL, **filled),
        order("C", key=key("c"), fill_price=None, **filled),
    )
    slips = read(store, clock).slips
    assert {slip.percent for slip in slips} == {Decimal("1.5"), Decimal("-1.5")}
    assert {slip.leg for slip in slips} == {Leg.ORDER_TO_FILL}  # no signal said a price


def test_what_was_lost_between_the_signal_its_order_and_the_fill(store: SqlStore, clock: Clock) -> None:
    filled = {"status": Status.FILLED, "filled_quantity": 75, "signal_price": Decimal(100)}
    insert(
        store,
        order("A", key=key("a"), ltp=Decimal(102), fill_price=Decimal("102.51"), **filled),
        # An exit has no last price of its own; it sold two below its signal.
        order(
            "B", key=key("b"), ltp=None, fill_price=Decimal(98), side=Side.SELL, purpose=Purpose.EXIT, **filled
        ),
        # The underlying's chart: 24,500 is no price that the option ever had.
        order("C", key=key("c"), fill_price=Decimal(100), **filled | {"signal_price": Decimal(24500)}),
        # Not filled: nothing was paid.
        order("D", key=key("d"), fill_price=None, **filled | {"filled_quantity": 0}),
    )  # fmt: skip
    found = read(store, clock)
    legs = {(s.purpose, s.leg, s.percent) for s in found.slips if s.leg is not Leg.ORDER_TO_FILL}
    assert legs == {
        ("entry", Leg.SIGNAL_TO_ORDER, Decimal(2)),
        ("entry", Leg.SIGNAL_TO_FILL, Decimal("2.51")),
        ("exit", Leg.SIGNAL_TO_FILL, Decimal(2)),
    }
    assert found.signals_elsewhere == 1


def test_caps_as_they_are_used_now(store: SqlStore, clock: Clock) -> None:
    with store.write() as tx:
        assert tx.reserve(SCOPE, "A", caps_of(LIMITS, NOON, Decimal(1), 75)) is None
    assert read(store, clock).caps == (CapUse("orders_day", 1, 300),)
    clock.pass_(24 * 3600)
    assert read(store, clock).caps == (CapUse("orders_day", 0, 300),)


def test_how_long_ago_a_pass_began(store: SqlStore, clock: Clock) -> None:
    with store.write() as tx:
        tx.record_pass(SCOPE, NOON)
    clock.pass_(7)
    assert read(store, clock).last_pass_s == 7


def test_what_is_open_is_told_beside_its_limits(store: SqlStore, clock: Clock) -> None:
    most = Decimal(100_000)
    limits = Limits(max_lots=1, max_open_lots=50, max_open_value=most)
    held: dict[str, Any] = {
        "status": Status.FILLED,
        "filled_quantity": 150,
        "fill_price": Decimal(100),
        "lot": 75,
    }
    insert(
        store,
        order("A", key=key("a"), quantity=150, **held),
        order("B", key=key("b"), quantity=75, lot=75, ltp=Decimal(90)),
        order("C", key=key("c"), quantity=150, scope=LIVE, **held),
    )
    found = figures(store.database, SCOPE, limits, Deadline(clock.monotonic() + 1))
    assert found.caps == (CapUse("open_lots", Decimal(3), 50), CapUse("open_value", Decimal(21_750), most))
