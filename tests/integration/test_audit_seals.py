"""Seals among writers: nothing is skipped, nothing is taken for a fault, and the service's own role can do its work."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.jobs import audit as audit_job
from app.jobs.audit import AuditBroken
from app.service.audit_check import SEAL_ORDERS_AT_ONCE, Check, Fault, Seal
from app.store.engine import Database
from app.store.seals_gcs import GcsSeals
from app.store.sql import SqlStore
from app.store.sql_audit import SqlAudit
from app.web.ports import Ports
from tests.fakes import FakeNotifier
from tests.integration.store_rows import SCOPE, Clock, insert, order, said
from tests.integration.test_audit_tampering import filled

ROOT = Path(__file__).parents[2]
ROUNDS = 60
EVENTS = 10_000
KINDS = (Event.ORDER_SENT_LATE, Event.ENTRY_CANCEL, Event.PROTECTION_SEEN)


def faults(audit: SqlAudit) -> tuple[Check, list[Fault]]:
    with audit.reading() as reading:
        check = Check(reading)
        return check, list(check)


def sealed_to_the_end(audit: SqlAudit) -> int:
    """The position of the last seal, once there is nothing left."""
    while audit.seal() is not None:
        pass
    (last,) = audit.newest(1)
    return last.upto


def write_rounds(store: SqlStore, writer: int) -> None:
    """New orders, and more events on old ones, some of them together in one transaction; some are rolled back."""
    rng, mine = Random(writer), list[Order]()
    for number in range(ROUNDS):
        made = order(f"W{writer}-{number:03d}")
        with store.write() as tx:
            tx.insert_order(made, said())
            for one in sorted(rng.sample(mine, min(2, len(mine))), key=lambda o: o.id):
                tx.record(one, said(rng.choice(KINDS), None))
        mine.append(made)
        with pytest.raises(ZeroDivisionError):
            rolled_back(store, made, f"R{writer}-{number:03d}")


def rolled_back(store: SqlStore, made: Order, another: str) -> None:
    with store.write() as tx:
        tx.record(made, said(Event.ORDER_SENT_LATE))
        tx.insert_order(order(another), said())
        raise ZeroDivisionError


def seal_and_verify(audit: SqlAudit, writers: list[Future[None]]) -> tuple[int, list[Fault]]:
    """Until the writers are done."""
    made, found = 0, list[Fault]()
    while not all(w.done() for w in writers):
        made += audit.seal() is not None
        found += faults(audit)[1]
    return made, found


@pytest.fixture
def stores(database_url: str) -> Iterator[list[SqlStore]]:
    """Three instances on Postgres; on SQLite there is one."""
    made = [
        SqlStore(Database(database_url, None), Clock()) for _ in range(1 if "sqlite" in database_url else 3)
    ]
    yield made
    for one in made:
        one.close()


def test_no_false_alarm_and_nothing_skipped_while_three_instances_write_and_seal(
    stores: list[SqlStore],
) -> None:
    slow, audits = stores[0], [SqlAudit(s.database) for s in stores]
    insert(slow, order("LONG", tag="LONG"), order("AFTER"))
    with ExitStack() as stack:
        if not slow.database.is_sqlite:  # a transaction that began before all others and ends after them
            long = stack.enter_context(slow.database.engine.connect())
            # The engine's own connections begin no transaction by themselves.
            long = long.execution_options(isolation_level="READ COMMITTED")
            long.begin()
            from app.store.sql_transaction import SqlTransaction

            tx = SqlTransaction(long, datetime.now(UTC), writing=True)
            tx.insert_order(order("LATE"), said())
            tx.record(order("LONG", tag="LONG"), said(Event.ORDER_SENT_LATE))
        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write_rounds, stores[n % len(stores)], n) for n in range(4)]
            sealers = [pool.submit(seal_and_verify, audit, writers) for audit in audits]
            for writer in writers:
                writer.result(120)
            results = [sealer.result(120) for sealer in sealers]
        assert [found for _, found in results if found] == []
        assert sum(made for made, _ in results) >= 2
        before = sealed_to_the_end(audits[0])
        if not slow.database.is_sqlite:
            long.commit()
            assert sealed_to_the_end(audits[0]) == before + 2  # what it wrote long ago is covered now
    check, found = faults(audits[-1])
    assert found == []
    assert check.unsealed == 0
    assert check.last is not None
    assert check.last.upto == check.events  # each event once, none skipped
    assert check.orders == 4 * ROUNDS + 2 + (not slow.database.is_sqlite)


def test_two_that_seal_at_once_make_one_seal_each_number(stores: list[SqlStore]) -> None:
    audits = [SqlAudit(s.database) for s in stores for _ in range(2)]
    for wave in range(10):
        insert(stores[0], *(order(f"S{wave}-{n}") for n in range(3)))
        with ThreadPoolExecutor(len(audits)) as pool:
            made = list(pool.map(lambda a: a.seal(), audits))
        assert sum(seal is not None for seal in made) <= 1
    check, found = faults(audits[0])
    assert (found, check.unsealed, check.seals) == ([], 0, 10)


def test_more_orders_than_one_seal_takes_are_sealed_one_after_the_other(
    store: SqlStore, clock: Clock
) -> None:
    insert(store, *(order(f"M{n:04d}") for n in range(SEAL_ORDERS_AT_ONCE + 1)))
    audit = SqlAudit(store.database)
    first, second, none = audit.seal(), audit.seal(), audit.seal()
    assert first is not None
    assert second is not None
    assert none is None
    assert (first.upto, second.upto) == (SEAL_ORDERS_AT_ONCE, SEAL_ORDERS_AT_ONCE + 1)
    assert second.prev_hash == first.hash
    assert faults(audit)[1] == []


def test_what_was_not_sealed_yet_is_counted(store: SqlStore, clock: Clock) -> None:
    audit = filled(store, clock, Random(3))
    insert(store, order("NEW"))
    with store.write() as tx:
        tx.record(order("O00"), said(Event.ORDER_SENT_LATE))
    check, found = faults(audit)
    assert (found, check.unsealed, check.seals, check.orders) == ([], 2, 6, 31)


def test_a_seal_noted_elsewhere_must_still_be_the_same(store: SqlStore, clock: Clock) -> None:
    audit = filled(store, clock, Random(4))
    with audit.reading() as reading:
        assert list(Check(reading, {2: "0" * 64, 9: "1" * 64})) == [
            Fault("it has another hash than was noted elsewhere", seal=2),
            Fault("it was noted elsewhere, and is gone", seal=9),
        ]


def test_entries_are_of_ist_days_and_oldest_first(store: SqlStore) -> None:
    audit = SqlAudit(store.database)
    last_of_23, first_of_24 = (
        datetime(2026, 11, 23, 18, 29, 59, 999999, UTC),
        datetime(2026, 11, 23, 18, 30, tzinfo=UTC),
    )
    with store.write() as tx:
        tx.insert_order(order("B"), replace(said(), at=first_of_24))
        tx.insert_order(order("A"), replace(said(), at=last_of_23))
    days: list[tuple[date | None, date | None, list[str]]] = [
        (None, None, ["A", "B"]),
        (date(2026, 11, 23), date(2026, 11, 23), ["A"]),
        (date(2026, 11, 24), None, ["B"]),
        (None, date(2026, 11, 22), []),
    ]
    for first, last, expected in days:
        with audit.reading() as reading:
            assert [entry.order_id for entry in reading.entries(first, last)] == expected
    with audit.reading() as reading:
        entry = next(reading.entries(None, None))
    assert (entry.at, entry.client, entry.quantity) == (last_of_23, "trader", 75)


def test_the_whole_audit_is_never_in_memory(store: SqlStore) -> None:
    """Where all events at once would be ten megabytes."""
    insert(store, order("A"))
    with store.database.write(Deadline(60.0)) as connection:
        connection.execute(
            text(
                "INSERT INTO order_events (order_id, sequence, event, at, status, detail, prev_hash, hash) "
                "SELECT order_id, :n, event, at, status, detail, prev_hash, hash FROM order_events WHERE sequence = 1"
            ),
            [{"n": n} for n in range(2, EVENTS + 1)],
        )
    with SqlAudit(store.database).reading() as reading:
        tracemalloc.start()
        assert sum(1 for _ in reading.links()) == EVENTS
        assert sum(1 for _ in reading.entries(None, None)) == EVENTS
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000, peak


class Vault:
    """Keeps what it is given, and can be away."""

    def __init__(self) -> None:
        self.kept: dict[int, Seal] = {}
        self.is_away = False
        self.writes_left = 1_000_000
        self.reads = 0

    def put(self, seal: Seal) -> bool:
        if self.is_away or not self.writes_left:
            raise StoreUnavailable("away")
        self.writes_left -= 1
        return self.kept.setdefault(seal.number, seal) is seal

    def hash_of(self, number: int) -> str | None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.reads += 1
        return self.kept[number].hash if number in self.kept else None


def test_the_job_seals_copies_and_catches_up(
    store: SqlStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    audit, vault = SqlAudit(store.database), Vault()
    ports = cast("Ports", SimpleNamespace(audit=audit, seal_vault=vault))
    insert(store, order("A"))
    caplog.set_level(logging.INFO)
    assert audit_job.run(ports, None) == "1 seals of at most 500 orders, 1 copied"
    vault.is_away = True
    for name in ("B", "C"):
        insert(store, order(name))
        assert audit_job.run(ports, None) == "1 seals of at most 500 orders"
    assert sorted(vault.kept) == [1]
    vault.is_away = False
    assert audit_job.run(ports, None) == "nothing changed, 2 copied"
    assert [vault.kept[n] for n in (3, 2, 1)] == list(audit.newest(9))
    assert all(seal.hash in caplog.text for seal in vault.kept.values())


def test_no_seal_is_left_without_a_copy_by_a_bucket_that_comes_and_goes(
    store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, vault = SqlAudit(store.database), Vault()
    ports = cast("Ports", SimpleNamespace(audit=audit, seal_vault=vault))
    monkeypatch.setattr(audit_job, "COPIES_PER_RUN", 5)
    vault.is_away = True
    for number in range(12):
        insert(store, order(f"A{number}"))
        audit_job.run(ports, None)
    vault.is_away, vault.writes_left = False, 1
    assert audit_job.run(ports, None) == "nothing changed, 1 copied"
    vault.writes_left = 1_000_000
    assert [audit_job.run(ports, None) for _ in range(4)] == [
        "nothing changed, 5 copied",
        "nothing changed, 5 copied",
        "nothing changed, 1 copied",
        "nothing changed",
    ]
    assert sorted(vault.kept) == list(range(1, 13))
    vault.reads = 0
    insert(store, order("B"))
    assert audit_job.run(ports, None) == "1 seals of at most 500 orders, 1 copied"
    assert vault.reads <= 4


def test_a_copy_with_another_hash_is_no_copy(store: SqlStore, clock: Clock) -> None:
    audit, vault, notifier = SqlAudit(store.database), Vault(), FakeNotifier()
    ports = cast("Ports", SimpleNamespace(audit=audit, seal_vault=vault, notifier=notifier))
    for name in ("A", "B"):
        insert(store, order(name))
        audit_job.run(ports, None)
    assert audit_job.verify(ports, None).endswith(", copied up to seal 2")
    vault.kept[2] = replace(vault.kept[2], hash="another")
    for job in (audit_job.run, audit_job.verify):
        with pytest.raises(AuditBroken, match="seal 2 has another hash"):
            job(ports, None)
    assert notifier.pages == ["audit_broken"]
    vault.kept[2] = audit.newest(1)[0]
    vault.kept[3] = replace(vault.kept[2], number=3)
    for job in (audit_job.run, audit_job.verify):
        with pytest.raises(AuditBroken, match="has a seal 3, which the database has not"):
            job(ports, None)
    vault.is_away = True
    assert audit_job.verify(ports, None).endswith("; not compared with the copies: away")


class Blob:
    def __init__(self, kept: dict[str, bytes], name: str) -> None:
        self.kept, self.name, self.generation = kept, name, 1

    def upload_from_string(self, data: bytes, *, if_generation_match: int, **_: object) -> None:
        from google.api_core.exceptions import Forbidden, PreconditionFailed

        assert if_generation_match == 0
        if self.name.endswith("9.json"):
            raise Forbidden("https://secret-address")  # type: ignore[no-untyped-call]
        if self.name in self.kept:
            raise PreconditionFailed("there")  # type: ignore[no-untyped-call]
        self.kept[self.name] = data

    def download_as_bytes(self, **_: object) -> bytes:
        return self.kept[self.name]


def test_a_copy_in_the_bucket_is_written_once_and_never_replaced() -> None:
    pytest.importorskip("google.api_core")
    kept: dict[str, bytes] = {}
    bucket = SimpleNamespace(
        blob=lambda name: Blob(kept, name),
        get_blob=lambda name, **_: Blob(kept, name) if name in kept else None,
    )
    vault = GcsSeals("b", lambda: SimpleNamespace(bucket=lambda _: bucket))
    seal = Seal(1, 5, datetime(2026, 11, 23, 6, 30, tzinfo=UTC), "", "h1")
    assert vault.put(seal)
    assert not vault.put(replace(seal, hash="h2"))
    assert [vault.hash_of(n) for n in (1, 2)] == ["h1", None]
    kept["audit/seal-000000003.json"] = b"not ours"
    assert vault.hash_of(3) == ""
    del kept["audit/seal-000000003.json"]
    assert list(kept) == ["audit/seal-000000001.json"]
    assert b'"hash": "h1"' in kept["audit/seal-000000001.json"]
    with pytest.raises(StoreUnavailable) as refused:
        vault.put(replace(seal, number=9))
    assert refused.value.detail == "the copy of a seal cannot be written: Forbidden"


REFUSED = [
    "UPDATE order_events SET detail = '{}'",
    "DELETE FROM order_events",
    "TRUNCATE order_events",
    "DELETE FROM orders",
    "TRUNCATE orders CASCADE",
    "UPDATE audit_seals SET upto = 1",
    "DELETE FROM audit_seals",
    "UPDATE audit_seal_heads SET head_hash = ''",
    "DELETE FROM audit_seal_heads",
    "UPDATE trading_state_history SET reason = ''",
    "DELETE FROM trading_state_history",
    "UPDATE config_versions SET reason = ''",
    "DELETE FROM alembic_version",
    "ALTER TABLE order_events DISABLE TRIGGER ALL",
    "DROP TRIGGER order_events_append_only ON order_events",
    "CREATE TABLE mine (id INTEGER)",
]


def test_the_documented_role_works_and_cannot_change_what_was_said(postgres_url: str, clock: Clock) -> None:
    owner = create_engine(postgres_url)
    with owner.begin() as connection:
        connection.exec_driver_sql((ROOT / "docs" / "postgres-roles.sql").read_text())
    role = make_url(postgres_url).set(username="trader_app").render_as_string(hide_password=False)
    store = SqlStore(Database(role, clock), clock)
    audit = filled(store, clock, Random(5))
    store.ensure_scope(SCOPE)
    assert store.check() is None
    with store.write() as tx:
        assert tx.move(order("O00"), Status.ACCEPTED, said(Event.ORDER_ACCEPTED, Status.ACCEPTED)) is not None
        tx.purge_keys(SCOPE, tx.now() - timedelta(days=2), 10)
    with store.database.engine.connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "trader_app"
        for statement in REFUSED:
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner") as refused:
                connection.exec_driver_sql(statement)
            assert refused.value.orig is not None
            connection.rollback()
    assert sealed_to_the_end(audit) == faults(audit)[0].events
    assert faults(audit)[1] == []
    store.close()
    owner.dispose()
