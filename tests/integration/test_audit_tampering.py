"""Whatever is changed in the audit behind the service's back is found, and found where it was done."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.domain.audit import Event
from app.domain.status import Status
from app.service.audit_check import Check, Fault
from app.store.sql import SqlStore
from app.store.sql_audit import SqlAudit, SqlReading
from tests.integration.audit_damage import KINDS, Damage, Place, drop_triggers, last_seal
from tests.integration.store_rows import Clock, order, said

TAMPERINGS = 500


def filled(store: SqlStore, clock: Clock, rng: Random) -> SqlAudit:
    """Thirty orders whose events came in six waves, a seal after each."""
    audit = SqlAudit(store.database)
    known = []
    for wave in range(6):
        with store.write() as tx:
            for number in range(5):
                made = order(f"O{wave}{number}")
                tx.insert_order(made, said())
                known.append(made)
            for one in rng.sample(known, min(len(known), 8)):
                tx.record(one, said(Event.ORDER_SENT_LATE, rng.choice([None, Status.SENDING])))
        clock.pass_(60)
        assert audit.seal() is not None
    return audit


def matches(fault: Fault, place: Place) -> bool:
    return (
        place.order_id in (None, fault.order_id)
        and (not place.sequences or fault.sequence in place.sequences)
        and place.seal in (None, fault.seal)
    )


def test_an_order_whose_whole_chain_was_cut_before_any_seal(store: SqlStore) -> None:
    """Its row made to fit: no count and no hash is wrong then, but no order is written without its first event."""
    with store.write() as tx:
        tx.insert_order(order("CUT"), said())
    drop_triggers(store.database.engine)
    with store.database.engine.begin() as connection:
        for statement in (
            "DELETE FROM order_events WHERE order_id = 'CUT'",
            "UPDATE orders SET event_count = 0, head_hash = '' WHERE id = 'CUT'",
        ):
            connection.execute(text(statement))
    with SqlAudit(store.database).reading() as reading:
        (fault,) = Check(reading)
    assert (fault.order_id, fault.sequence) == ("CUT", 1)


def test_500_random_tamperings_are_all_found_and_located(store: SqlStore, clock: Clock) -> None:
    audit = filled(store, clock, Random(7))
    drop_triggers(store.database.engine)
    anchor = dict([last_seal(audit)])
    with audit.reading() as reading:
        assert list(Check(reading, anchor)) == []
    tried: Counter[str] = Counter()
    with store.database.engine.connect() as connection:
        if store.database.is_sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.rollback()
        for seed in range(TAMPERINGS):
            connection.begin()
            connection.exec_driver_sql("BEGIN")
            kind = KINDS[seed % len(KINDS)]
            place = kind(Damage(connection, Random(seed)))
            found = list(Check(SqlReading(connection), anchor))
            assert any(matches(fault, place) for fault in found), (kind.__name__, seed, place, found)
            tried[kind.__name__] += 1
            connection.rollback()
    assert len(tried) == len(KINDS)
    assert sum(tried.values()) == TAMPERINGS
    with audit.reading() as reading:
        assert list(Check(reading, anchor)) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "noon"),
        ("at", "2026-11-23T06:30:00.000000"),
        ("detail", "{"),
        ("detail", '{"why":"x","why":"test"}'),
    ],
)
def test_what_sqlite_lets_stand_in_a_column_is_found_and_breaks_nothing(
    sqlite_url: str, clock: Clock, column: str, value: str
) -> None:
    from app.store.sql import connect

    store = connect(sqlite_url, clock)
    audit = filled(store, clock, Random(1))
    drop_triggers(store.database.engine)
    with store.database.write() as connection:
        change = text(f"UPDATE order_events SET {column} = :v WHERE order_id = 'O03' AND sequence = 1")
        connection.execute(change, {"v": value})
    with audit.reading() as reading:
        assert Fault("the event was changed", "O03", 1) in list(Check(reading))
        assert len(list(reading.entries(None, None))) > 0
    store.close()


CHANGES = [
    "UPDATE order_events SET detail = '{}'",
    "DELETE FROM order_events WHERE order_id = 'O00'",
    "DELETE FROM orders WHERE id = 'O00'",
    "UPDATE audit_seals SET upto = 1",
    "DELETE FROM audit_seals WHERE number = 6",
    "UPDATE audit_seal_heads SET head_hash = ''",
    "DELETE FROM audit_seal_heads",
    "UPDATE trading_state_history SET reason = ''",
    "DELETE FROM trading_state_history",
]
REPLACED = [
    "INSERT OR REPLACE INTO order_events SELECT * FROM order_events WHERE order_id = 'O00'",
    "INSERT OR REPLACE INTO orders SELECT * FROM orders WHERE id = 'O00'",
    "INSERT OR REPLACE INTO audit_seals SELECT * FROM audit_seals",
    "INSERT OR REPLACE INTO audit_seal_heads SELECT * FROM audit_seal_heads",
    "INSERT OR REPLACE INTO trading_state_history SELECT * FROM trading_state_history",
]
EMPTIED = ["order_events", "audit_seals", "audit_seal_heads", "trading_state_history", "orders CASCADE"]


def test_the_database_itself_refuses_to_change_what_was_said(store: SqlStore, clock: Clock) -> None:
    audit = filled(store, clock, Random(2))
    store.ensure_scope(order().scope)
    if not store.database.is_sqlite:
        statements = CHANGES + [f"TRUNCATE {table}" for table in EMPTIED]
    else:
        statements = CHANGES + REPLACED
    for statement in statements:
        with store.database.engine.connect() as connection:
            if store.database.is_sqlite:
                connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # what refuses must be the trigger
            with pytest.raises(DBAPIError, match=r"append-only|has this row already"):
                connection.exec_driver_sql(statement)
            connection.rollback()
    clock.pass_(timedelta(minutes=1).total_seconds())
    with store.write() as tx:
        assert tx.move(order("O00"), Status.ACCEPTED, said(Event.ORDER_ACCEPTED, Status.ACCEPTED)) is not None
    assert audit.seal() is not None
    with audit.reading() as reading:
        assert list(Check(reading)) == []
