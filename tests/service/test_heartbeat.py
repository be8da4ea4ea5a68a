"""The lost-alert watch: one word when a heartbeat goes missing, one when it is back, and a warning of bursts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from app.domain.alert import ADMIN_CLIENT, IST
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Scope
from app.errors import InvalidAlert
from app.service.heartbeat import (
    BURST,
    BURST_WITHIN,
    CLOSES,
    LONGEST_S,
    MOST_WATCHED,
    OPENS,
    SHORTEST_S,
    SILENT,
    Beat,
    BurstWatch,
    MissingWatch,
    allowed,
    beat,
    is_missing,
    missing_text,
)
from app.service.records import Refusal
from app.store.engine import Database
from app.store.sql import SqlStore
from app.store.sql_figures import figures
from app.store.sql_heartbeats import SqlHeartbeats
from tests.fake_beside import FakeHeartbeats
from tests.fakes import FakeClock, FakeNotifier
from tests.integration.store_rows import LIVE, SCOPE, Clock, insert, key, order


def at(local: str) -> datetime:
    return datetime.fromisoformat(local).replace(tzinfo=IST).astimezone(UTC)


class Watch:
    def __init__(self, local: str) -> None:
        self.clock, self.notifier = FakeClock(at(local)), FakeNotifier()
        self.kept, self.missing = FakeHeartbeats(self.clock), MissingWatch()
        self.kept.listens(SILENT)

    def beat(self, every: int = 60, strategy: str = "orb", client: str = "default") -> None:
        beat(self.kept, Beat(client, strategy, every), self.clock.now(), self.notifier)

    def look(self) -> None:
        self.missing(self.kept, self.clock.now(), self.notifier)

    def pass_(self, seconds: float) -> None:
        """The service is up, and nobody looks for what is missing."""
        while seconds > 0:
            step = min(seconds, SILENT.total_seconds())
            self.clock.advance(step)
            self.kept.listens(SILENT)
            seconds -= step

    def to(self, local: str) -> None:
        self.pass_((at(local) - self.clock.now()).total_seconds())

    def figure(self) -> int:
        return sum(is_missing(one, self.clock.now()) for one in self.kept.watched())


def test_missing_is_told_once_and_so_is_the_return() -> None:
    watch = Watch("2026-11-18 10:00")
    watch.beat()
    watch.pass_(120)  # 1.5 times the interval, and 30 s
    watch.look()
    assert watch.notifier.pages == []
    watch.pass_(1)
    for _ in range(3):
        watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]
    watch.beat()
    watch.beat()
    assert watch.notifier.notes == ["heartbeat_back"]
    watch.pass_(121)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]  # within five minutes of the last page
    watch.pass_(179)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2


def test_what_goes_missing_before_the_close_is_told_before_it() -> None:
    watch = Watch("2026-11-18 15:24")
    watch.beat()
    watch.pass_(120)
    watch.beat(strategy="two")
    watch.pass_(1)
    watch.look()
    watch.to("2026-11-18 15:28:59")
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]
    watch.to("2026-11-18 15:29:30")
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    watch, bursts = Watch("2026-11-18 13:00"), BurstWatch()
    watch.beat()
    watch.pass_(121)
    watch.look()
    watch.kept.busy = [("default", "fast", BURST + 1)]
    bursts(watch.kept, watch.clock.now(), watch.notifier)
    watch.clock.advance(-7200)
    watch.look()
    watch.beat(strategy="two")
    watch.pass_(121)
    watch.look()
    bursts(watch.kept, watch.clock.now(), watch.notifier)
    assert watch.notifier.pages == ["heartbeat_missing"] * 2
    assert watch.notifier.notes == ["alert_burst"] * 2


def test_one_that_falls_silent_as_the_clock_is_set_back_is_missed() -> None:
    watch = Watch("2026-11-18 13:00")
    watch.beat()
    watch.clock.advance(-7200)
    watch.look()
    watch.pass_(120)
    watch.look()
    assert watch.notifier.pages == []
    watch.pass_(1)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]


def test_all_of_a_clients_that_stay_away_are_one_page() -> None:
    watch = Watch("2026-11-18 10:00")
    for number in range(12):
        watch.beat(strategy=f"s{number}")
    watch.beat(client="another")
    watch.pass_(121)
    watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"] * 2  # one for each client
    watch.beat(strategy="late")
    for _ in range(10):
        watch.pass_(29)
        watch.look()
    assert len(watch.notifier.pages) == 2
    watch.pass_(11)
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


def test_an_outage_of_ours_begins_the_count_anew_and_a_loss_after_it_is_paged() -> None:
    watch = Watch("2026-11-18 10:00")
    watch.beat(strategy="lost")
    watch.beat(strategy="heard")
    watch.pass_(15)
    watch.clock.advance(1800)  # nothing of ours runs
    watch.look()
    assert (watch.notifier.pages, watch.figure()) == ([], 0)
    watch.pass_(60)
    watch.beat(strategy="heard")
    watch.pass_(60)
    watch.look()
    assert (watch.notifier.pages, watch.figure()) == ([], 0)
    watch.pass_(1)
    MissingWatch()(
        watch.kept, watch.clock.now(), watch.notifier
    )  # another instance's turn: it was not there before
    assert (watch.notifier.pages, watch.figure()) == (["heartbeat_missing"], 1)
    text = missing_text([one for one in watch.kept.watched() if one.missing_since])
    assert "lost (every 60 s, last 18 Nov 10:00:00 IST)" in text


def test_a_short_silence_of_the_watch_is_no_outage() -> None:
    """Each minute, as Cloud Scheduler calls it: else nothing would ever be missing."""
    watch = Watch("2026-11-18 10:00")
    watch.beat()
    for _ in range(3):
        watch.clock.advance(60)
        watch.look()
    assert watch.notifier.pages == ["heartbeat_missing"]


def test_what_was_missing_yesterday_counts_again_when_it_is_late_today() -> None:
    watch = Watch("2026-11-17 15:00")
    watch.beat()
    watch.pass_(121)
    watch.look()
    figures = {}
    for moment in ("17 15:10", "17 15:31", "18 09:17", "18 09:17:01"):
        watch.to(f"2026-11-{moment}")
        figures[moment] = watch.figure()
    assert figures == {"17 15:10": 1, "17 15:31": 0, "18 09:17": 0, "18 09:17:01": 1}
    watch.beat()
    assert watch.figure() == 0


@pytest.mark.parametrize("every", [SHORTEST_S, LONGEST_S])
def test_every_accepted_interval_can_be_missed_within_one_session(every: int) -> None:
    """The allowance grows with the interval, so that its two ends stand for all. A minute is left for the watch."""
    day = date(2026, 11, 18)
    opened, closes = (datetime.combine(day, hour, IST) for hour in (OPENS, CLOSES))
    assert allowed(every) <= closes - opened - timedelta(minutes=1)
    watch = Watch("2026-11-17 15:29")
    watch.beat(every)
    watch.pass_((closes - watch.clock.now()).total_seconds() - 1)
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
    assert kept.bursts(timedelta(minutes=3), BURST) == (("trader", "fast", BURST + 1),)
    clock.pass_(181)
    assert kept.bursts(timedelta(minutes=3), BURST) == ()
    store.close()


def test_since_when_any_instance_has_listened(database_url: str, clock: Clock) -> None:
    first, second = (Database(database_url, clock) for _ in range(2))
    one, other = SqlHeartbeats(first, SCOPE), SqlHeartbeats(second, SCOPE)
    began = one.listens(SILENT)
    assert began == clock.now()
    for instance in (other, one, other):
        clock.pass_(90)
        assert instance.listens(SILENT) == began
    clock.pass_(90.001)
    assert SqlHeartbeats(first, LIVE).listens(SILENT) == clock.now()
    again = one.listens(SILENT)
    assert again == clock.now()
    clock.pass_(15)
    assert other.listens(SILENT) == again
    clock.pass_(-20_000)  # it was ahead, and was set right
    assert one.listens(SILENT) == clock.now()
    clock.pass_(15)
    assert other.listens(SILENT) == clock.now() - timedelta(seconds=15)
    for database in (first, second):
        database.close()


def test_a_burst_counts_orders_and_what_was_refused_by_name(database_url: str, clock: Clock) -> None:
    store = SqlStore(Database(database_url, clock), clock)
    kept, refused = SqlHeartbeats(store.database, SCOPE), Refused(store, clock)
    for n in range(6):
        insert(store, order(f"N{n}", key=key(f"d{n}"), created_at=clock.now()))
    for _ in range(5):
        refused("'orb'")
    assert kept.bursts(BURST_WITHIN, BURST) == (("trader", "orb", BURST + 1),)
    refused("'orb'", scope=LIVE)
    refused("'orb'", status=503)  # sent again by TradingView, and not fired for that
    refused("'orb'", client=None)
    refused("'orb'", client="another")
    for n in range(BURST + 1):  # as many exits as `halt --flatten` needs
        insert(store, order(f"A{n}", key=key(f"a{n}"), created_at=clock.now(), client=ADMIN_CLIENT))
        refused("'orb'", client=ADMIN_CLIENT)
    for _ in range(BURST + 1):
        refused(None)  # over a rate limit: it says of no strategy that it fires
        refused("7")
        refused(r"'a\n'")
    found = kept.bursts(BURST_WITHIN, BURST)
    assert found == tuple(("trader", name, BURST + 1) for name in (r"'a\n'", "7", "orb"))
    clock.pass_(180)
    assert kept.bursts(BURST_WITHIN, BURST) == ()
    store.close()


def test_the_figure_follows_the_watch(database_url: str, clock: Clock) -> None:
    store = SqlStore(Database(database_url, clock), clock)
    store.ensure_scope(SCOPE)
    kept, watch, told = SqlHeartbeats(store.database, SCOPE), MissingWatch(), FakeNotifier()

    def looked() -> tuple[int, int]:
        deadline = Deadline(clock.monotonic() + 1)
        watch(kept, clock.now(), told)
        return len(told.pages), figures(
            store.database, SCOPE, Limits(max_lots=1), deadline
        ).heartbeats_missing

    kept.came(Beat("default", "orb", 60))
    looked()
    clock.pass_(1800)
    found = [looked()]
    for seconds in (60, 60, 1):
        clock.pass_(seconds)
        found.append(looked())
    kept.came(Beat("default", "orb", 60))
    assert [*found, looked()] == [(0, 0), (0, 0), (0, 0), (1, 1), (1, 0)]
    store.close()


class Refused:
    """Records of refusals, as the webhook keeps them."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def __call__(
        self,
        strategy: str | None,
        client: str | None = "trader",
        scope: Scope = SCOPE,
        status: int = 400,
    ) -> None:
        fields = {} if strategy is None else {"strategy": strategy}
        refusal = Refusal(self._clock.now(), "127.0.0.1", client, status, "x", "", "", fields, "r")
        self._store.record_refusal(scope, refusal)
