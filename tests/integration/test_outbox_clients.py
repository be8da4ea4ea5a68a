"""What clients have chosen for what is told of their orders: where it goes then, and what still goes to the operator."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.domain.audit import Event
from app.domain.status import Status
from app.service.notices import Channel, Notice
from app.service.records import Moved
from app.store.sql import SqlStore
from app.store.sql_config import SqlConfig
from app.store.sql_outbox import SqlOutbox
from app.store.tables_notices import deliveries, notices
from tests.integration.store_rows import SCOPE, Clock, key, order, said
from tests.integration.test_outbox import ALL, OTHER, note

CLIENTS = Channel("c", "3 tgram", ("clients", "-order_denied"), 20)


@pytest.fixture
def outbox(store: SqlStore) -> SqlOutbox:
    return SqlOutbox(store.database, SCOPE)


def preferred(store: SqlStore, client: str, *channels: str) -> None:
    SqlConfig(store.database).set_preferences(client, {"channels": list(channels)})


def gone_to(outbox: SqlOutbox) -> set[tuple[str, str]]:
    return {(p.channel, p.title) for p in outbox.hand_out([ALL, OTHER, CLIENTS], "me", ())}


def a_row(store: SqlStore, letter: str, client: str) -> str:
    with store.write() as tx:
        row = order(letter * 26, tag=letter, key=key(letter), client=client)
        tx.insert_order(row, said())
        moved = tx.move(row, Status.ACCEPTED, said(Event.ORDER_ACCEPTED, Status.ACCEPTED), Moved())
        assert moved is not None
    return letter * 26


@pytest.mark.parametrize("word", ["3", "tgram", "3 tgram"])
def test_what_is_told_of_a_clients_order_goes_where_he_has_chosen(
    store: SqlStore, outbox: SqlOutbox, clock: Clock, word: str
) -> None:
    preferred(store, "asha", word)
    mine, others = a_row(store, "A", "asha"), a_row(store, "B", "ravi")
    outbox.derive(clock.now())
    assert gone_to(outbox) == {("c", "PAPER order_accepted"), ("a", "PAPER order_accepted")}
    outbox.add(Notice("order_filled", "of mine", page=False, key="1", subject=mine))
    assert gone_to(outbox) == set()  # each channel has one on its way
    outbox.add(Notice("order_filled", "of his", page=False, key="2", subject=others))
    outbox.add(Notice("order_denied", "taken out of that channel", page=False, key="3", subject=mine))
    with store.database.read() as connection:
        d, n = deliveries.c, notices.c
        rows = connection.execute(select(n.key, d.channel).join(deliveries, d.notice_id == n.id)).all()
    assert {tuple(r) for r in rows if r.key == "1"} == {("1", "c")}


def test_a_page_about_a_clients_order_goes_to_him_and_to_the_operator(
    store: SqlStore, outbox: SqlOutbox
) -> None:
    preferred(store, "asha", "3")
    mine = a_row(store, "A", "asha")
    outbox.add(Notice("unprotected", "naked", page=True, key="1", subject=mine))
    assert gone_to(outbox) == {(c, "PAPER PAGE unprotected") for c in "abc"}


@pytest.mark.parametrize("chosen", [(), ("9", "gone")])
def test_without_a_choice_or_with_one_that_is_no_more_it_goes_as_usual(
    store: SqlStore, outbox: SqlOutbox, chosen: tuple[str, ...]
) -> None:
    preferred(store, "asha", *chosen)
    mine = a_row(store, "A", "asha")
    outbox.add(Notice("order_filled", "filled", page=False, key="1", subject=mine))
    assert gone_to(outbox) == {("a", "PAPER order_filled")}


def test_nobody_chooses_for_what_is_not_about_his_orders(store: SqlStore, outbox: SqlOutbox) -> None:
    preferred(store, "asha", "3")
    outbox.add(note(1))
    outbox.add(note(1, "fire", page=True))
    assert gone_to(outbox) == {("a", "PAPER note"), ("a", "PAPER PAGE fire"), ("b", "PAPER PAGE fire")}
