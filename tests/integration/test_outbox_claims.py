"""Who may send a parcel: its claimer for as long as that one lives, then its heir; and only of the own scope."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.errors import StoreUnavailable
from app.service.notices import CLAIM_LEASE, Parcel
from app.store import sql_deliveries
from app.store.sql import SqlStore, connect
from app.store.sql_deliveries import LOST_AFTER
from app.store.sql_outbox import SqlOutbox
from app.store.tables import locks
from app.store.tables_notices import deliveries
from app.telemetry import outbox_sender
from app.telemetry.outbox_child import FINISH_S
from app.telemetry.outbox_sender import RENEW_AGAIN_S, RENEW_S, STUCK_S, Child, Sender
from tests.integration.store_rows import LIVE, SCOPE, Clock
from tests.integration.test_outbox import ALL, OTHER, note, sent

WITHIN_S = 10


class Renewals:
    """The pauses of a sender's thread: it goes on when the test lets it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: queue.Queue[float] = queue.Queue()
        self._over: queue.Queue[None] = queue.Queue()

    def pause(self, seconds: float) -> None:
        self._begun.put(seconds)
        self._over.get(timeout=WITHIN_S)

    def begun(self) -> float:
        """Wait for the next pause. How long it is to be."""
        return self._begun.get(timeout=WITHIN_S)

    def end(self, seconds: float) -> None:
        self._clock.pass_(seconds)
        self._over.put(None)


class HeldChild(Child):
    """Sends nothing until it is told how a parcel ended."""

    def send(self, parcels: Sequence[tuple[Parcel, str]]) -> None:
        self._pid = os.getpid()
        self._open = {(p.ref, p.channel): self._clock.monotonic() for p, _ in parcels}

    def answer(self, *, sent: bool | None) -> None:
        while self._open:
            self.answer_first(sent=sent)

    def answer_first(self, *, sent: bool | None) -> None:
        first = next(iter(self._open))
        del self._open[first]
        self._ended(*first, sent)


class Unreachable(SqlOutbox):
    """Does not take the first renewal."""

    tried = 0

    def renew(self, owner: str) -> None:
        self.tried += 1
        if self.tried == 1:
            raise StoreUnavailable("the database is down")
        super().renew(owner)


@pytest.fixture
def outbox(store: SqlStore) -> SqlOutbox:
    return SqlOutbox(store.database, SCOPE)


@pytest.fixture
def renewals(clock: Clock) -> Renewals:
    return Renewals(clock)


@pytest.fixture
def receipts(tmp_path: Path) -> Path:
    return tmp_path / "receipts"


def a_sender(outbox: SqlOutbox, receipts: Path, clock: Clock, renewals: Renewals) -> tuple[Sender, HeldChild]:
    sender = Sender(outbox, [(ALL, "url")], receipts, clock, "first", pause=renewals.pause)
    child = sender.child = HeldChild(receipts, clock, sender._settle)
    return sender, child


def renewing() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("claims ")]


def leased(store: SqlStore) -> list[str]:
    with store.database.read() as connection:
        return list(connection.execute(select(locks.c.name).order_by(locks.c.name)).scalars())


def test_what_is_being_sent_is_nobody_elses_however_long_it_takes(
    outbox: SqlOutbox, receipts: Path, clock: Clock, renewals: Renewals
) -> None:
    sender, child = a_sender(outbox, receipts, clock, renewals)
    for number in range(2):  # the second time with a thread of its own
        outbox.add(note(number, "fire", page=True))
        sender()
        while clock.monotonic() % 100 < STUCK_S - RENEW_S:
            assert renewals.begun() == RENEW_S
            assert outbox.hand_out([ALL], "second", ()) == []  # the next pass, which another process takes
            renewals.end(RENEW_S)
        assert renewals.begun() == RENEW_S
        child.answer(sent=True)
        (thread,) = renewing()
        renewals.end(RENEW_S)
        thread.join(WITHIN_S)
        assert renewing() == []
        clock.pass_(100 - clock.monotonic() % 100)
        assert outbox.hand_out([ALL], "second", ()) == []  # it was sent, and once


def test_a_renewal_that_the_database_does_not_take_is_tried_again(
    store: SqlStore, receipts: Path, clock: Clock, renewals: Renewals
) -> None:
    outbox = Unreachable(store.database, SCOPE)
    sender, child = a_sender(outbox, receipts, clock, renewals)
    outbox.add(note(1, "fire", page=True))
    sender()
    for pause_s in (RENEW_S, RENEW_AGAIN_S, RENEW_S, RENEW_S):
        assert renewals.begun() == pause_s
        renewals.end(pause_s)
    assert renewals.begun() == RENEW_S
    assert outbox.hand_out([ALL], "second", ()) == []
    child.answer(sent=True)
    (thread,) = renewing()
    renewals.end(RENEW_S)
    thread.join(WITHIN_S)


def test_a_stuck_child_is_ended_by_its_own_process_though_every_pass_is_anothers(
    outbox: SqlOutbox, receipts: Path, clock: Clock, renewals: Renewals
) -> None:
    sender, child = a_sender(outbox, receipts, clock, renewals)
    outbox.add(note(1, "fire", page=True))
    sender()
    stuck = child._process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True
    )
    try:
        for _ in range(int(STUCK_S / RENEW_S)):
            assert renewals.begun() == RENEW_S
            renewals.end(RENEW_S)
        assert renewals.begun() == RENEW_S
        assert stuck.poll() is None
        (thread,) = renewing()
        renewals.end(RENEW_S)
        thread.join(WITHIN_S)
        assert stuck.wait(WITHIN_S) == -signal.SIGKILL
    finally:
        stuck.kill()
        stuck.communicate()


def test_what_a_slow_channel_was_not_begun_with_waits_again_behind_a_page(
    store: SqlStore, outbox: SqlOutbox, receipts: Path, clock: Clock, renewals: Renewals
) -> None:
    sender, child = a_sender(outbox, receipts, clock, renewals)
    for code in ("note_a", "note_b", "note_c"):
        outbox.add(note(1, code))
    sender()
    outbox.add(note(1, "fire", page=True))
    clock.pass_(STUCK_S)
    child.answer_first(sent=True)
    child.answer(sent=None)
    pages, *notes = outbox.hand_out([ALL], "second", ())
    assert pages.title == "PAPER PAGE fire"
    assert sorted(p.title for p in notes) == ["PAPER note_b", "PAPER note_c"]
    with store.database.read() as connection:
        assert set(connection.execute(select(deliveries.c.attempts)).scalars()) == {0}
    assert renewals.begun() == RENEW_S
    renewals.end(RENEW_S)


def test_what_was_not_begun_waits_as_long_as_its_channel_is_left_alone(
    outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1, "note_a"))
    outbox.add(note(1, "note_b"))
    first, second = outbox.hand_out([ALL], "me", ())
    outbox.settle("me", first.ref, first.channel, sent=False)
    outbox.give_back("another", second.ref, second.channel)  # it is not his to give
    clock.pass_(6)
    assert outbox.hand_out([ALL], "me", ()) == []
    outbox.settle("me", second.ref, second.channel, sent=False)
    outbox.give_back("me", second.ref, second.channel)
    assert outbox.hand_out([ALL], "me", ()) == []
    clock.pass_(5)
    assert len(outbox.hand_out([ALL], "me", ())) == 2


def test_what_a_stuck_child_has_not_begun_is_sent_later_also_a_note(
    store: SqlStore, outbox: SqlOutbox, receipts: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_sender, "CHILD", "tests.integration.outbox_hung_child")
    ended: queue.Queue[tuple[str, str, bool | None]] = queue.Queue()

    def settle(ref: str, channel: str, sent: bool | None) -> None:
        if sent is None:
            outbox.give_back("first", ref, channel)
        else:
            outbox.settle("first", ref, channel, sent=sent)
        ended.put((ref, channel, sent))

    for code in ("note_a", "note_b", "note_c", "note_d"):
        outbox.add(note(1, code))
    parcels = outbox.hand_out([ALL], "first", ())
    child = Child(receipts, clock, settle)
    child.send([(p, "url") for p in parcels])
    try:
        assert ended.get(timeout=WITHIN_S) == (parcels[0].ref, ALL.id, True)
        clock.pass_(STUCK_S)
        child.tend()
        assert child.is_sending
        clock.pass_(1)
        child.tend()
        assert [ended.get(timeout=WITHIN_S) for _ in range(2)] == [(p.ref, ALL.id, None) for p in parcels[2:]]
    finally:
        child.close()
    clock.pass_(LOST_AFTER.total_seconds())
    again = outbox.hand_out([ALL], "second", ())
    # Not the second one, which may have gone out.
    assert sorted(sent(outbox, again)) == [p.title for p in parcels[2:]]


def test_the_heir_takes_over_when_the_lease_has_ended_and_leaves_no_row_of_the_dead(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "dead", ())
    clock.pass_(CLAIM_LEASE.total_seconds() - 1)
    assert outbox.hand_out([ALL], "heir", ()) == []
    assert leased(store) == ["sender:dead"]  # and none of the heir, who has claimed nothing
    clock.pass_(1)
    assert outbox.hand_out([ALL], "heir", ()) == [page]
    assert leased(store) == ["sender:heir"]


def test_a_fork_claims_as_another_and_renews_nothing_of_its_parent(
    store: SqlStore,
    outbox: SqlOutbox,
    receipts: Path,
    clock: Clock,
    renewals: Renewals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender, child = a_sender(outbox, receipts, clock, renewals)
    outbox.add(note(1, "fire", page=True))
    sender()
    assert renewals.begun() == RENEW_S
    (thread,) = renewing()
    (of_parent,) = leased(store)
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        assert not child.is_sending
        renewals.end(RENEW_S)  # were a thread to outlive a fork, it would end here
        thread.join(WITHIN_S)
        assert leased(store) == [of_parent]
        clock.pass_(CLAIM_LEASE.total_seconds() - RENEW_S)
        sender()  # the parent is dead; its fork is the heir, under a name of its own
        (of_fork,) = leased(store)
        assert of_fork != of_parent
        with store.database.read() as connection:
            assert f"sender:{connection.execute(select(deliveries.c.owner)).scalar_one()}" == of_fork
        assert renewals.begun() == RENEW_S
        child.answer(sent=True)
        (thread,) = renewing()
        renewals.end(RENEW_S)
        thread.join(WITHIN_S)


def test_a_child_without_its_service_ends_within_what_is_left_of_the_lease() -> None:
    assert CLAIM_LEASE.total_seconds() - RENEW_S > FINISH_S + 1


def test_what_waits_of_one_scope_is_nothing_to_another(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    live = SqlOutbox(store.database, LIVE)
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "paper", ())
    outbox.settle("paper", page.ref, page.channel, sent=False)
    clock.pass_(60)
    live.derive(clock.now())
    assert live.is_idle(clock.now())
    assert live.hand_out([ALL], "live", ()) == []
    assert outbox.hand_out([ALL], "paper", ()) == [page]


def test_what_a_dead_sender_of_one_scope_had_claimed_is_nothing_to_another(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    live = SqlOutbox(store.database, LIVE)
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "dead", ())
    live.add(replace(note(2, "smoke", page=True), key="live:2"))
    (of_live,) = live.hand_out([ALL, OTHER], "live", ())[:1]  # the other's in flight is not waited for
    assert (of_live.channel, of_live.title) == ("a", "LIVE PAGE smoke")
    clock.pass_(61)
    live.hand_out([ALL], "live", [page.ref])  # these receipts are of another file than the dead one's
    assert outbox.hand_out([ALL], "heir", ()) == [page]


def test_scopes_share_a_channels_minute_and_no_silence(
    store: SqlStore, outbox: SqlOutbox, clock: Clock
) -> None:
    live, narrow = SqlOutbox(store.database, LIVE), replace(ALL, per_minute=2)
    outbox.add(note(1))
    sent(outbox, outbox.hand_out([narrow], "paper", ()))
    for number in (2, 3):
        live.add(note(number, f"fire{number}", page=True))
    assert len(sent(live, live.hand_out([narrow], "live", ()))) == 1
    live.add(note(4))
    assert [p.title for p in live.hand_out([ALL], "live", ()) if "fire" not in p.title] == ["LIVE note"]


def test_a_sender_that_was_taken_over_changes_nothing_of_its_heirs_when_it_failed(
    outbox: SqlOutbox, clock: Clock
) -> None:
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "paused", ())
    clock.pass_(CLAIM_LEASE.total_seconds())
    assert outbox.hand_out([ALL], "heir", ()) == [page]
    outbox.settle("paused", page.ref, page.channel, sent=False)
    clock.pass_(10)
    outbox.renew("heir")
    assert outbox.hand_out([ALL], "third", ()) == []  # it is still on its way
    outbox.settle("heir", page.ref, page.channel, sent=True)
    clock.pass_(3600)
    assert outbox.hand_out([ALL], "third", ()) == []


def test_what_a_sender_that_was_taken_over_did_send_has_been_told(outbox: SqlOutbox, clock: Clock) -> None:
    outbox.add(note(1, "fire", page=True))
    (page,) = outbox.hand_out([ALL], "paused", ())
    clock.pass_(CLAIM_LEASE.total_seconds())
    assert outbox.hand_out([ALL], "heir", ()) == [page]
    outbox.settle("heir", page.ref, page.channel, sent=False)  # waits to be sent again
    outbox.settle("paused", page.ref, page.channel, sent=True)
    clock.pass_(3600)
    assert outbox.hand_out([ALL], "third", ()) == []


def test_what_has_been_told_since_the_look_is_not_claimed(
    postgres_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = connect(postgres_url, clock), connect(postgres_url, clock)
    outbox, slow = SqlOutbox(store.database, SCOPE), SqlOutbox(other.database, SCOPE)
    outbox.add(note(1, "fire", page=True))
    (page,) = slow.hand_out([ALL], "paused", ())
    clock.pass_(CLAIM_LEASE.total_seconds())
    assert outbox.hand_out([ALL], "heir", ()) == [page]
    outbox.settle("heir", page.ref, page.channel, sent=False)
    clock.pass_(60)
    groups = sql_deliveries._groups

    def told_meanwhile(rows: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(slow.settle, "paused", page.ref, page.channel, sent=True).result(5)
        return groups(rows)

    monkeypatch.setattr(sql_deliveries, "_groups", told_meanwhile)
    assert outbox.hand_out([ALL], "third", ()) == []
    monkeypatch.undo()
    clock.pass_(3600)
    assert outbox.hand_out([ALL], "third", ()) == []
    for one in (store, other):
        one.close()
