"""Channels that are shut or gone: by a clock that was ahead, or because their address is another one now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.service.notices import Channel, Parcel
from app.store.sql import SqlStore
from app.store.sql_deliveries import LONGEST_RETRY_S, LOST_AFTER, UNSERVED_AFTER
from app.store.sql_figures import figures
from app.store.sql_outbox import SqlOutbox
from app.store.tables_notices import deliveries
from tests.integration.store_rows import LIVE, SCOPE, Clock
from tests.integration.test_outbox import ALL, note, sent

OLD, NEW = Channel("old", "1 tgram", ("all",), 20), Channel("new", "1 tgram", ("all",), 20)
IST_AS_UTC = timedelta(minutes=330)
"""By so much a clock is ahead whose hardware says IST."""
PASS_S = 2.0
MOVED_WITHIN_S = LONGEST_RETRY_S + UNSERVED_AFTER.total_seconds() + 2 * PASS_S


@pytest.fixture
def outbox(store: SqlStore) -> SqlOutbox:
    return SqlOutbox(store.database, SCOPE)


def failed(outbox: SqlOutbox, parcels: Sequence[Parcel]) -> list[str]:
    for parcel in parcels:
        outbox.settle("me", parcel.ref, parcel.channel, sent=False)
    return [p.title for p in parcels]


def passes(outbox: SqlOutbox, clock: Clock, seconds: float, *channels: Channel) -> Iterator[list[Parcel]]:
    for _ in range(int(seconds / PASS_S)):
        clock.pass_(PASS_S)
        yield outbox.hand_out(channels, "me", ())


def first_of(outbox: SqlOutbox, clock: Clock, within_s: float, *channels: Channel) -> list[Parcel]:
    return next((parcels for parcels in passes(outbox, clock, within_s, *channels) if parcels), [])


def states(store: SqlStore) -> dict[str, str]:
    with store.database.read() as connection:
        rows = connection.execute(select(deliveries.c.channel, deliveries.c.state))
        return {row.channel: row.state for row in rows}


def page_waits_s(store: SqlStore, clock: Clock) -> float:
    deadline = Deadline(clock.monotonic() + 1)
    return figures(store.database, SCOPE, Limits(max_lots=1), deadline).oldest_page_waiting_s


def test_what_was_sent_while_the_clock_was_ahead_counts_for_no_minute_of_now(
    outbox: SqlOutbox, clock: Clock
) -> None:
    narrow = replace(ALL, per_minute=4)
    clock.at += IST_AS_UTC
    for number in range(3):
        outbox.add(note(number, f"note_{number}"))
        sent(outbox, outbox.hand_out([narrow], "me", ()))
        clock.pass_(360)
    outbox.add(note(0, "smoke", page=True))
    sent(outbox, outbox.hand_out([narrow], "me", ()))
    clock.at -= IST_AS_UTC
    outbox.add(note(9, "note_0"))
    outbox.add(note(9, "fire", page=True))
    assert sent(outbox, outbox.hand_out([narrow], "me", ())) == ["PAPER PAGE fire", "PAPER note_0"]


def test_a_retry_that_was_put_off_by_a_clock_that_was_ahead_is_made_now_and_put_off_as_ever(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    live = SqlOutbox(store.database, LIVE)
    clock.at += IST_AS_UTC
    live.add(replace(note(1, "smoke", page=True), key="live:1"))
    failed(live, live.hand_out([ALL], "me", ()))  # its service ends here, and leaves its pause behind
    outbox.add(note(1, "fire", page=True))
    clock.pass_(5)
    failed(outbox, outbox.hand_out([ALL], "me", ()))
    clock.at -= IST_AS_UTC
    outbox.add(note(2, "later", page=True))
    tried = []
    for _ in range(3):
        parcels = first_of(outbox, clock, LONGEST_RETRY_S, ALL)
        tried.append((clock.monotonic(), len(parcels)))
        failed(outbox, parcels)
    assert tried == [(7, 2), (17, 2), (37, 2)]


def test_what_a_dead_sender_had_claimed_while_the_clock_was_ahead_is_its_heirs_soon(
    outbox: SqlOutbox, clock: Clock
) -> None:
    clock.at += IST_AS_UTC
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "dead", ())
    clock.at -= IST_AS_UTC
    assert outbox.hand_out([ALL], "heir", ()) == []  # it may be on its way in this moment
    clock.pass_(LOST_AFTER.total_seconds() + 1)
    assert outbox.hand_out([ALL], "heir", ()) == [page]


def test_a_page_that_waits_for_an_address_of_before_goes_to_that_of_now(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    live, other = SqlOutbox(store.database, LIVE), replace(ALL, wanted=("pages",))
    live.add(replace(note(1), key="live:1"))
    failed(live, live.hand_out([OLD], "me", ()))
    outbox.add(note(1, "fire", page=True))
    outbox.add(note(1))
    for parcel in outbox.hand_out([OLD, other], "me", ()):
        outbox.settle("me", parcel.ref, parcel.channel, sent=parcel.channel == other.id)
    clock.pass_(60)
    outbox.derive(clock.now())
    # The address is mended and the service restarted.
    (page,) = first_of(outbox, clock, MOVED_WITHIN_S, NEW, other)
    assert (page.channel, page.title) == (NEW.id, "PAPER PAGE fire")
    assert page_waits_s(store, clock) == clock.monotonic()
    sent(outbox, [page])
    assert page_waits_s(store, clock) == 0
    assert outbox.is_idle(clock.now())
    assert [p.title for p in live.hand_out([OLD], "me", ())] == ["LIVE note"]  # of another service's address


def test_instances_that_know_different_channels_leave_each_other_what_they_try(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    """While a new version with a mended address replaces the old one. Neither address takes messages at first."""
    before, after = outbox, SqlOutbox(store.database, SCOPE)
    before.add(note(1, "fire", page=True))
    tried: list[str] = []
    for _ in range(int(600 / PASS_S)):
        for instance, channel in ((before, OLD), (after, NEW)):
            parcels = instance.hand_out([channel], "me", ())
            tried += [p.channel for p in parcels]
            failed(instance, parcels)
        clock.pass_(PASS_S)
    assert set(tried) == {OLD.id}
    assert len(tried) < 10
    assert states(store) == {OLD.id: "waiting"}
    (page,) = first_of(after, clock, MOVED_WITHIN_S, NEW)  # the old version has ended
    sent(after, [page])
    clock.pass_(3600)
    assert before.hand_out([OLD], "me", ()) == []  # and is back, because the new one was not good
    assert states(store) == {OLD.id: "gone", NEW.id: "sent"}


def test_what_waits_for_its_channels_minute_is_not_taken_from_it(outbox: SqlOutbox, clock: Clock) -> None:
    narrow, codes = replace(OLD, per_minute=4), "abcdefghijklmno"
    for code in codes:
        outbox.add(note(1, f"note_{code}"))
    told = sent(outbox, outbox.hand_out([narrow], "me", ()))
    for found in passes(outbox, clock, 300, NEW):
        assert found == []
        told += sent(outbox, outbox.hand_out([narrow], "me", ()))
    assert sorted(told) == [f"PAPER note_{code}" for code in codes]


def test_a_page_that_goes_to_and_fro_is_never_lost_and_has_one_ref_for_each_channel(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    """Each instance in turn has every pass for as long as it takes, and neither address takes messages at first."""
    outbox.add(note(1, "fire", page=True))
    tried: list[tuple[str, str]] = []
    for turn in range(4):
        for parcels in passes(outbox, clock, 2 * MOVED_WITHIN_S, (OLD, NEW)[turn % 2]):
            tried += [(p.channel, p.ref) for p in parcels]
            failed(outbox, parcels)
        assert sorted(states(store).values()) == ["gone", "waiting"][-len(states(store)) :]
    assert {channel for channel, _ in tried} == {OLD.id, NEW.id}
    assert len(set(tried)) == 2
    assert len(tried) < 4 * 10
    (page,) = first_of(outbox, clock, MOVED_WITHIN_S, OLD)
    sent(outbox, [page])
    for channel in (NEW, OLD):
        assert first_of(outbox, clock, MOVED_WITHIN_S, channel) == []


def test_a_late_word_of_what_was_sent_to_an_address_of_before_counts(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([OLD], "paused", ())
    clock.pass_(LOST_AFTER.total_seconds())
    (moved,) = first_of(outbox, clock, MOVED_WITHIN_S, NEW)
    failed(outbox, [moved])
    outbox.settle("paused", page.ref, page.channel, sent=True)
    assert first_of(outbox, clock, MOVED_WITHIN_S, OLD) == []
    assert states(store)[OLD.id] == "sent"


def test_without_any_channel_what_waits_goes_on_waiting_and_ends_with_its_time(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1, "fire", page=True))
    outbox.add(note(1))
    failed(outbox, outbox.hand_out([OLD], "me", ()))
    outbox.derive(clock.now())
    clock.at += timedelta(hours=5)
    outbox.hand_out([], "me", ())
    assert page_waits_s(store, clock) == 5 * 3600
    assert len(outbox.hand_out([OLD], "me", ())) == 2
    clock.at += timedelta(days=4)
    outbox.hand_out([], "heir", ())
    assert page_waits_s(store, clock) == 0
