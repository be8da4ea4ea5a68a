"""The lost-alert watch: one word when a heartbeat goes missing, one when it is back, and a warning of bursts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from app.domain.alert import IST
from app.errors import InvalidAlert
from app.service.heartbeat import (
    BURST,
    CLOSES,
    LONGEST_S,
    MOST_WATCHED,
    OPENS,
    SHORTEST_S,
    Beat,
    BurstWatch,
    MissingWatch,
    allowed,
    beat,
    missing_text,
)
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
        self.kept, self.missing = FakeHeartbeats(self.clock), MissingWatch()

    def beat(self, every: int = 60, strategy: str = "orb", client: str = "default") -> None:
        beat(self.kept, Beat(client, strategy, every), self.clock.now(), self.notifier)

    def look(self) -> None:
        self.missing(self.kept, self.clock.now(), self.notifier)

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
    assert watch.notifier.pages == ["heartbeat_missing"]  # within five minutes of the last page
    watch.clock.advance(179)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2


def test_all_of_a_clients_that_stay_away_are_one_page() -> None:
    watch = Watch("2026-11-18 10:00")
    for number in range(12):
        watch.beat(strategy=f"s{number}")
    watch.beat(client="another")
    watch.clock.advance(121)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2  # one for each client
    watch.beat(strategy="late")
    for _ in range(10):
        watch.clock.advance(29)
        watch.look()
    assert len(watch.notifier.pages) == 2
    watch.clock.advance(11)
    watch.look()
    assert len(watch.notifier.pages) == 3


def test_the_page_names_them_and_their_number() -> None:
    watch = Watch("2026-11-18 10:00")
    for number in range(12):
        watch.beat(strategy=f"s{number}")
    text = missing_text(watch.kept.watched())
    assert "heartbeats of default stay away: s0 (every 60 s, last 18 Nov 10:00:00 IST), s1" in text
    assert "s9 (" in text
    assert "s10" not in text
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("last", "look", "missing"),
    [
        ("2026-11-17 15:29", "2026-11-18 09:14", False),  # no bars before the opening
        ("2026-11-17 15:29", "2026-11-18 09:17", False),  # counted from the opening
        ("2026-11-17 15:29", "2026-11-18 09:17:01", True),
        ("2026-11-18 15:29", "2026-11-18 15:31:30", False),  # none after the close
        ("2026-11-18 15:00", "2026-11-18 15:29", True),
        ("2026-11-20 15:29", "2026-11-21 11:00", False),  # a Saturday
        ("2026-11-18 09:20", "2026-11-25 09:19:59", True),
        ("2026-11-18 09:20", "2026-11-25 09:20", False),  # a week old: a strategy that is no more
    ],
)
def test_only_the_sessions_time_counts(last: str, look: str, missing: bool) -> None:
    watch = Watch(last)
    watch.beat()
    watch.to(look)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * missing


@pytest.mark.parametrize("every", [SHORTEST_S, LONGEST_S])
def test_every_accepted_interval_can_be_missed_within_one_session(every: int) -> None:
    """The allowance grows with the interval, so that its two ends stand for all. A minute is left for the watch."""
    day = date(2026, 11, 18)
    opened, closes = (datetime.combine(day, hour, IST) for hour in (OPENS, CLOSES))
    assert allowed(every) <= closes - opened - timedelta(minutes=1)
    watch = Watch("2026-11-17 15:29")
    watch.beat(every)
    watch.clock.advance((closes - watch.clock.now()).total_seconds() - 1)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]


def test_invented_names_come_to_an_end() -> None:
    watch = Watch("2026-11-18 10:00")
    for number in range(MOST_WATCHED):
        watch.beat(strategy=f"s{number}")
    with pytest.raises(InvalidAlert, match="500 strategies"):
        watch.beat(strategy="one more")
    assert len(watch.kept.rows) == MOST_WATCHED
    watch.beat(strategy="s7")  # a known one goes on
    watch.beat(client="another")
    watch.to("2026-11-25 10:00")
    watch.beat(strategy="one more")  # the others have been silent for a week


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
    assert kept.missed([seen], told) == 0  # another has come meanwhile
    (seen,) = (w for w in kept.watched() if w.strategy == "orb")
    assert kept.missed([seen], told) == 1
    assert kept.missed([seen], told) == 0
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
