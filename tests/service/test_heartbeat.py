"""The lost-alert watch: one word when a heartbeat goes missing, one when it is back, and a warning of bursts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.alert import IST
from app.service.heartbeat import BURST, Beat, BurstWatch, beat, watch_heartbeats
from app.store.sql import SqlStore
from app.store.sql_heartbeats import SqlHeartbeats
from tests.fake_beside import FakeHeartbeats
from tests.fakes import FakeClock, FakeNotifier
from tests.integration.store_rows import SCOPE, Clock, insert, order


def at(local: str) -> datetime:
    return datetime.fromisoformat(local).replace(tzinfo=IST).astimezone(UTC)


class Watch:
    def __init__(self, local: str) -> None:
        self.clock, self.notifier = FakeClock(at(local)), FakeNotifier()
        self.kept = FakeHeartbeats(self.clock)

    def beat(self, every: int = 60) -> None:
        beat(self.kept, Beat("default", "orb", every), self.notifier)

    def look(self) -> None:
        watch_heartbeats(self.kept, self.clock.now(), self.notifier)

    def to(self, local: str) -> None:
        self.clock.advance((at(local) - self.clock.now()).total_seconds())


def test_missing_is_told_once_and_so_is_the_return() -> None:
    watch = Watch("2026-11-18 10:00")
    watch.beat()
    watch.clock.advance(120)  # 1.5 times the interval, and 30 s
    watch.look()
    assert watch.notifier.pages == []
    watch.clock.advance(1)
    for _ in range(3):
        watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]
    watch.beat()
    watch.beat()
    assert watch.notifier.notes == ["heartbeat_back"]
    watch.clock.advance(121)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2


@pytest.mark.parametrize(
    ("last", "look", "missing"),
    [
        ("2026-11-17 15:29", "2026-11-18 09:14", False),  # no bars before the opening
        ("2026-11-17 15:29", "2026-11-18 09:17", False),  # counted from the opening
        ("2026-11-17 15:29", "2026-11-18 09:17:01", True),
        ("2026-11-18 15:29", "2026-11-18 15:31:30", False),  # none after the close
        ("2026-11-18 15:00", "2026-11-18 15:29", True),
        ("2026-11-20 15:29", "2026-11-21 11:00", False),  # a Saturday
    ],
)
def test_only_the_sessions_time_counts(last: str, look: str, missing: bool) -> None:
    watch = Watch(last)
    watch.beat()
    watch.to(look)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * missing


def test_a_burst_is_warned_of_once_in_its_three_minutes() -> None:
    watch = Watch("2026-11-18 10:00")
    bursts = BurstWatch()
    watch.kept.busy = [("default", "orb", BURST), ("default", "fast", BURST + 1)]
    for _ in range(4):
        bursts(watch.kept, watch.clock.now(), watch.notifier)
        watch.clock.advance(30)
    assert watch.notifier.notes == ["alert_burst"]
    watch.clock.advance(61)
    bursts(watch.kept, watch.clock.now(), watch.notifier)
    assert watch.notifier.notes == ["alert_burst"] * 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_the_database_keeps(database_url: str, clock: Clock) -> None:
    from app.store.engine import Database

    store = SqlStore(Database(database_url, clock), clock)
    kept, told = SqlHeartbeats(store.database, SCOPE), FakeNotifier()
    assert not kept.came(Beat("default", "orb", 60))
    assert not kept.came(Beat("default", "", 90))
    (seen,) = (w for w in kept.watched() if w.strategy == "orb")
    assert (seen.every_seconds, seen.last_at, seen.missing_since) == (60, clock.now(), None)
    clock.pass_(5)
    assert not kept.came(Beat("default", "orb", 60))
    assert not kept.missed(seen, told, "came meanwhile")
    (seen,) = (w for w in kept.watched() if w.strategy == "orb")
    assert kept.missed(seen, told, "gone")
    assert not kept.missed(seen, told, "gone")
    assert told.pages == ["heartbeat_missing"]
    assert kept.came(Beat("default", "orb", 60))
    assert not kept.came(Beat("default", "orb", 60))
    insert(
        store,
        *(
            order(
                f"N{n}",
                strategy="fast" if n else "slow",
                created_at=clock.now(),
                key=order().key.__class__(order().key.kind, f"d{n}", "b"),
            )
            for n in range(BURST + 2)
        ),
    )
    from datetime import timedelta

    assert kept.bursts(timedelta(minutes=3), BURST) == (("trader", "fast", BURST + 1),)
    clock.pass_(181)
    assert kept.bursts(timedelta(minutes=3), BURST) == ()
    store.close()
