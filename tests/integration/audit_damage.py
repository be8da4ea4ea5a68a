"""Ways to tamper with the audit behind the service's back, each saying where `audit verify` must find it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.store.sql_audit import SqlAudit
from app.store.sql_rows import event_from, hash_of
from app.store.tables import order_events
from tests.integration.store_rows import NOON


@dataclass(frozen=True)
class Place:
    """What one of the faults must name; None: anything."""

    order_id: str | None = None
    sequences: tuple[int, ...] = ()
    seal: int | None = None


def drop_triggers(engine: Engine) -> None:
    """As an owner can; and the foreign keys of the events with them."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            for name in connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name[0]}")
        else:
            found = connection.exec_driver_sql(
                "SELECT DISTINCT trigger_name, event_object_table FROM information_schema.triggers "
                "UNION SELECT tgname::text, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
            ).all()
            for name, table in found:
                connection.exec_driver_sql(f"DROP TRIGGER {name} ON {table}")
            connection.exec_driver_sql(
                "ALTER TABLE order_events DROP CONSTRAINT IF EXISTS fk_order_events_order_id"
            )
        connection.commit()


class Damage:
    """One tampering, in a transaction that the caller rolls back."""

    def __init__(self, connection: Connection, rng: Random) -> None:
        self.connection, self.rng = connection, rng
        self.many = self.rows(
            "SELECT order_id, COUNT(*) FROM order_events GROUP BY order_id ORDER BY order_id"
        )
        self.seals = [r[0] for r in self.rows("SELECT number FROM audit_seals ORDER BY number")]

    def rows(self, sql: str, **values: object) -> list[Any]:
        return list(self.connection.execute(text(sql), values).all())

    def do(self, sql: str, **values: object) -> None:
        self.connection.execute(text(sql), values)

    def order(self, at_least: int = 1) -> tuple[str, int]:
        chosen = self.rng.choice([row for row in self.many if row[1] >= at_least])
        return chosen[0], chosen[1]

    def event(self) -> tuple[str, int]:
        order_id, count = self.order()
        return order_id, self.rng.randint(1, count)

    def fit(self, order_id: str) -> None:
        """The order's row says what its chain says, as one would do who knows how it is made."""
        last = self.rows(
            "SELECT sequence, hash FROM order_events WHERE order_id = :o ORDER BY sequence DESC LIMIT 1",
            o=order_id,
        )
        count, head = last[0] if last else (0, "")
        self.do(
            "UPDATE orders SET event_count = :n, head_hash = :h WHERE id = :o", n=count, h=head, o=order_id
        )

    def set_event(self, order_id: str, sequence: int, column: str, value: object) -> None:
        self.do(
            f"UPDATE order_events SET {column} = :v WHERE order_id = :o AND sequence = :s",
            v=value,
            o=order_id,
            s=sequence,
        )

    # -- each kind

    def change_a_field(self) -> Place:
        order_id, sequence = self.event()
        other = self.rng.choice([row[0] for row in self.many if row[0] != order_id])
        new: dict[str, object] = {
            "event": "order:forged",
            "at": f"2026-11-{self.rng.randint(10, 20)} 06:30:00.000000",
            "status": "FORGED",
            "detail": json.dumps({"why": f"forged {self.rng.random()}"}),
            "prev_hash": f"{self.rng.getrandbits(256):064x}",
            "hash": f"{self.rng.getrandbits(256):064x}",
            "sequence": 100 + self.rng.randint(1, 50),
            "order_id": other,
        }
        column = self.rng.choice(sorted(new))
        if column == "order_id":
            self.do(
                "UPDATE order_events SET sequence = 77 WHERE order_id = :o AND sequence = :s",
                o=order_id,
                s=sequence,
            )
            self.set_event(order_id, 77, "order_id", other)
        else:
            self.set_event(order_id, sequence, column, new[column])
        return Place(order_id, (sequence,))

    def delete_an_event(self) -> Place:
        order_id, sequence = self.event()
        self.do("DELETE FROM order_events WHERE order_id = :o AND sequence = :s", o=order_id, s=sequence)
        return Place(order_id, (sequence,))

    def insert_an_event(self) -> Place:
        """In between, with the right hashes of its own; the row is made to fit or not."""
        order_id, count = self.order()
        sequence = self.rng.randint(1, count)
        for later in range(count, sequence - 1, -1):
            self.set_event(order_id, later, "sequence", later + 1)
        before = self.rows(
            "SELECT hash FROM order_events WHERE order_id = :o AND sequence = :s", o=order_id, s=sequence - 1
        )
        self._add(order_id, sequence, before[0][0] if before else "")
        if self.rng.random() < 0.5:
            self.fit(order_id)
        return Place(order_id, (sequence, sequence + 1))

    def append_an_event(self) -> Place:
        order_id, count = self.order()
        self._add(
            order_id,
            count + 1,
            f"{self.rng.getrandbits(256):064x}" if self.rng.random() < 0.5 else self._head(order_id),
        )
        return Place(order_id, (count + 1,))

    def _head(self, order_id: str) -> str:
        return str(self.rows("SELECT head_hash FROM orders WHERE id = :o", o=order_id)[0][0])

    def _add(self, order_id: str, sequence: int, previous: str) -> None:
        made = hash_of(order_id, sequence, "order:forged", NOON, None, {}, previous)
        self.connection.execute(
            order_events.insert().values(
                order_id=order_id,
                sequence=sequence,
                event="order:forged",
                at=NOON,
                status=None,
                detail={},
                prev_hash=previous,
                hash=made,
            )
        )

    def swap_two_events(self) -> Place:
        order_id, count = self.order(at_least=2)
        a, b = sorted(self.rng.sample(range(1, count + 1), 2))
        for old, new in ((a, -1), (b, a), (-1, b)):
            self.set_event(order_id, old, "sequence", new)
        return Place(order_id, (a,))

    def cut_an_orders_tail(self) -> Place:
        order_id, count = self.order(at_least=2)
        kept = self.rng.randint(0, count - 1)
        self.do("DELETE FROM order_events WHERE order_id = :o AND sequence > :n", o=order_id, n=kept)
        if self.rng.random() < 0.5:
            return Place(order_id, (kept + 1,))
        self.fit(order_id)
        return Place(order_id, (count,), self._seal_of(order_id, count))

    def _seal_of(self, order_id: str, count: int) -> int:
        found = self.rows(
            "SELECT seal FROM audit_seal_heads WHERE order_id = :o AND event_count = :n", o=order_id, n=count
        )
        return int(found[0][0])

    def cut_the_tail_of_everything(self) -> Place:
        """Back to how it was at one seal: all rows fit, only later seals still tell; or their heads; or a note elsewhere."""
        upto = self.rng.choice(self.seals[:-1])
        kept = dict(
            tuple(r)
            for r in self.rows(
                "SELECT order_id, MAX(event_count) FROM audit_seal_heads WHERE seal <= :n GROUP BY order_id",
                n=upto,
            )
        )
        for order_id, _ in self.many:
            self.do(
                "DELETE FROM order_events WHERE order_id = :o AND sequence > :n",
                o=order_id,
                n=kept.get(order_id, 0),
            )
            self.fit(order_id)
            if order_id not in kept:
                self.do("DELETE FROM orders WHERE id = :o", o=order_id)
        how_far = self.rng.randint(0, 2)
        if how_far >= 1:
            self.do("DELETE FROM audit_seals WHERE number > :n", n=upto)
        if how_far == 2:
            self.do("DELETE FROM audit_seal_heads WHERE seal > :n", n=upto)
            return Place(seal=self.seals[-1])  # noted elsewhere
        return Place(seal=upto + 1)

    def delete_an_order(self) -> Place:
        order_id, count = self.order()
        events_too = self.rng.random() < 0.7
        if events_too:
            self.do("DELETE FROM order_events WHERE order_id = :o", o=order_id)
        self.do("DELETE FROM orders WHERE id = :o", o=order_id)
        return Place(order_id, seal=self._seal_of(order_id, count) if events_too else None)

    def change_an_orders_row(self) -> Place:
        order_id, count = self.order()
        if self.rng.random() < 0.5:
            self.do(
                "UPDATE orders SET head_hash = :h WHERE id = :o",
                h=f"{self.rng.getrandbits(256):064x}",
                o=order_id,
            )
        else:
            self.do(
                "UPDATE orders SET event_count = :n WHERE id = :o",
                n=count + self.rng.choice([-1, 1, 5]),
                o=order_id,
            )
        return Place(order_id)

    def rewrite_an_order(self) -> Place:
        """One field changed and everything behind it recomputed, the row too: only a seal still tells."""
        order_id, count = self.order()
        previous = ""
        changed = self.rng.randint(1, count)
        events = self.connection.execute(
            order_events.select().where(order_events.c.order_id == order_id).order_by(order_events.c.sequence)
        ).all()
        for row in events:
            event = event_from(row)
            word = "FORGED" if row.sequence == changed else row.status
            made = hash_of(order_id, row.sequence, row.event, event.at, word, row.detail, previous)
            for column, value in (("status", word), ("prev_hash", previous), ("hash", made)):
                self.set_event(order_id, row.sequence, column, value)
            previous = made
        self.fit(order_id)
        return Place(order_id, (count,), self._seal_of(order_id, count))

    def change_a_seal(self) -> Place:
        seal = self.rng.choice(self.seals)
        new: dict[str, object] = {
            "number": 1000,
            "upto": 99_999,
            "sealed_at": "2026-11-20 06:30:00.000000",
            "prev_hash": f"{self.rng.getrandbits(256):064x}",
            "hash": f"{self.rng.getrandbits(256):064x}",
        }
        column = self.rng.choice(sorted(new))
        self.do(f"UPDATE audit_seals SET {column} = :v WHERE number = :n", v=new[column], n=seal)
        return Place(seal=seal)

    def change_what_a_seal_stands_on(self) -> Place:
        seal, place = self.rng.choice(self.rows("SELECT seal, place FROM audit_seal_heads"))
        change = self.rng.choice(
            [
                "UPDATE audit_seal_heads SET head_hash = 'x'",
                "UPDATE audit_seal_heads SET event_count = 500",
                "UPDATE audit_seal_heads SET order_id = 'X'",
                "UPDATE audit_seal_heads SET seal = 1000",
                "DELETE FROM audit_seal_heads",
            ]
        )
        self.do(f"{change} WHERE seal = :s AND place = :p", s=seal, p=place)
        return Place(seal=seal)

    def delete_a_seal(self) -> Place:
        seal = self.rng.choice(self.seals)
        self.do("DELETE FROM audit_seals WHERE number = :n", n=seal)
        if self.rng.random() < 0.5 and seal != self.seals[-1]:
            self.do("DELETE FROM audit_seal_heads WHERE seal = :n", n=seal)
        return Place(seal=seal)


KINDS: tuple[Callable[[Damage], Place], ...] = (
    Damage.change_a_field,
    Damage.delete_an_event,
    Damage.insert_an_event,
    Damage.append_an_event,
    Damage.swap_two_events,
    Damage.cut_an_orders_tail,
    Damage.cut_the_tail_of_everything,
    Damage.delete_an_order,
    Damage.change_an_orders_row,
    Damage.rewrite_an_order,
    Damage.change_a_seal,
    Damage.change_what_a_seal_stands_on,
    Damage.delete_a_seal,
)


def last_seal(audit: SqlAudit) -> tuple[int, str]:
    (seal,) = audit.newest(1)
    return seal.number, seal.hash
