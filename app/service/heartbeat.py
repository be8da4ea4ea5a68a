"""The lost-alert watch: strategies that say regularly that they live, and alerts that TradingView is about to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Protocol

from app.domain.alert import IST
from app.domain.session import is_trading_day
from app.errors import FieldError, InvalidAlert
from app.service.ports import Notifier

OPENS, CLOSES = time(9, 15), time(15, 30)
"""IST. A chart of an index or a share has no bars outside, and an alert on it cannot fire. Options trade until 15:40
(fyers-api.md 5): of a strategy on an option's own chart the last ten minutes are not watched, since nothing here says
which chart it is, and one on the index must not be missed every afternoon.
"""
LAST_CALL = time(15, 29)
"""IST. The watch looks at least once a minute."""
LATE_FACTOR, LATE_SECONDS = 1.5, 30
SHORTEST_S, LONGEST_S = 60, 14_400
"""TradingView's own minute, and four hours: what is allowed then (`allowed`, 6 h 0.5 min) just fits into a session of
6 h 15 min, which the count begins anew. A longer interval could be accepted and never missed.
"""
SILENT = timedelta(seconds=90)
"""A longer silence of the watch itself was an outage of ours, and nobody's heartbeats could be heard. More than a minute,
the finest step of Cloud Scheduler, and what a change of the instance that watches takes (15 s of a lease and a turn):
taken for outages, those would put every page off for ever. So a heartbeat that a short restart swallowed is paged.
"""
HEARTBEAT = "heartbeat"
"""The outcome of a message that is one."""
MOST_WATCHED, FORGOTTEN = 500, timedelta(days=7)
"""Strategies of one client, those silent for a week not counted: whoever has a stolen token must not fill the database
with names.
"""
QUIET, MOST_NAMES = timedelta(minutes=5), 10
"""One page tells of all of a client's that went missing since the last one: TradingView rarely loses one alert alone."""
BURST = 10
BURST_WITHIN = timedelta(minutes=3)
TRADINGVIEW_STOPS_AT = 15
"""An alert that fires more often than this in three minutes is stopped by TradingView (tradingview.md)."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat alert: never an order."""

    client: str
    strategy: str
    every_seconds: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A strategy whose heartbeats are awaited."""

    client: str
    strategy: str
    every_seconds: int
    last_at: datetime
    missing_since: datetime | None


class Heartbeats(Protocol):
    """Where heartbeats are kept. Every method raises StoreUnavailable."""

    def came(self, beat: Beat) -> bool:
        """Keep it. True: it had been missed, so that somebody has to hear of its return."""

    def watched(self) -> tuple[Watched, ...]: ...

    def missed(self, ones: Sequence[Watched], tell: Notifier) -> int:
        """Mark them and tell of all of them at once (`missing_text`), in one transaction. How many: not those of which
        another heartbeat has come, or that were marked already.
        """

    def listens(self, silence: timedelta) -> datetime:
        """Say that this service is up, and hear since when it has been: any instance's word counts, and a time longer
        than `silence` without one was an outage.
        """

    def bursts(self, within: timedelta, more_than: int) -> Sequence[tuple[str, str, int]]:
        """Client, strategy and number of alerts of those with more alerts than that.

        Counted is what left a row: orders, whatever became of them, and refused alerts whose record names the strategy
        (400). Not an operator's, whose orders no alert of TradingView's makes. A copy within the dedupe window, one over a rate limit (429) and one that could not be read or came in
        without its token name none: TradingView counts those as well, so that its stop may come before this warning.
        """


def allowed(every_seconds: int) -> timedelta:
    """How long after a heartbeat the next one is missing."""
    return timedelta(seconds=LATE_FACTOR * every_seconds + LATE_SECONDS)


def is_late(one: Watched, now: datetime, listening_since: datetime) -> bool:
    """Counted within the day's session only: from its opening, the last heartbeat, or the moment since which this
    service has listened, whichever came last.
    """
    local = now.astimezone(IST)
    if not is_trading_day(local.date()) or not OPENS <= local.time() < CLOSES:
        return False
    if now - one.last_at >= FORGOTTEN:
        return False  # a strategy that is no more
    opened = datetime.combine(local.date(), OPENS, IST)
    # One that lies ahead was heard by a clock that has been set back since, and by so much that the watch began anew.
    heard = one.last_at if one.last_at <= now + SILENT else opened
    return now - max(heard, opened, listening_since) > allowed(one.every_seconds)


def is_missing(one: Watched, now: datetime) -> bool:
    """What the figures and their alarm count: found missing by the watch, which alone knows since when this service has
    listened; and, of an earlier day's, not heard in time today either.
    """
    return one.missing_since is not None and is_late(one, now, one.last_at)


def name_of(client: str, strategy: str) -> str:
    return f"strategy {strategy or 'without a name'} of {client}"


def missing_text(ones: Sequence[Watched]) -> str:
    """For a person, of one client's."""
    said = [
        f"{one.strategy or 'one without a name'} (every {one.every_seconds} s, last {one.last_at.astimezone(IST):%d %b %H:%M:%S} IST)"
        for one in ones[:MOST_NAMES]
    ]
    more = f" and {len(ones) - MOST_NAMES} more" if len(ones) > MOST_NAMES else ""
    return (
        f"heartbeats of {ones[0].client} stay away: {', '.join(said)}{more}: look whether TradingView has stopped or lost "
        "the alerts"
    )


def is_quiet(until: datetime | None, now: datetime, longest: timedelta) -> bool:
    """Whether it is too soon to tell again. What lies further ahead is of a clock that has been set back since."""
    return until is not None and now < until <= now + longest


class MissingWatch:
    """Tells of heartbeats that went missing, each once; of one client's at most once in QUIET, as this process sees it,
    but for the last minute of a session: tomorrow the count begins anew, and nobody would ever hear of it.
    """

    def __init__(self) -> None:
        self._quiet_until: dict[str, datetime] = {}

    def __call__(self, heartbeats: Heartbeats, now: datetime, notifier: Notifier) -> int:
        """Returns how many."""
        missing: dict[str, list[Watched]] = {}
        listening_since = heartbeats.listens(SILENT)
        for one in heartbeats.watched():
            if one.missing_since is None and is_late(one, now, listening_since):
                missing.setdefault(one.client, []).append(one)
        last_call = datetime.combine(now.astimezone(IST).date(), LAST_CALL, IST)
        told = 0
        for client, ones in missing.items():
            if is_quiet(self._quiet_until.get(client), now, QUIET):
                continue
            if found := heartbeats.missed(ones, notifier):
                self._quiet_until[client] = min(now + QUIET, last_call)
                told += found
        return told


def beat(heartbeats: Heartbeats, came: Beat, now: datetime, notifier: Notifier) -> None:
    """A heartbeat has come. Raises InvalidAlert for a new strategy of a client that has MOST_WATCHED already."""
    alive = {
        w.strategy for w in heartbeats.watched() if w.client == came.client and now - w.last_at < FORGOTTEN
    }
    if came.strategy not in alive and len(alive) >= MOST_WATCHED:
        text = (
            f"expected one of the {MOST_WATCHED} strategies with a heartbeat in the last week, was a new one"
        )
        raise InvalidAlert((FieldError("strategy", text),))
    if heartbeats.came(came):
        notifier.notify("heartbeat_back", f"{name_of(came.client, came.strategy)}: its heartbeat is back")


class BurstWatch:
    """Warns before TradingView stops an alert; one warning for each burst, as this process sees it."""

    def __init__(self) -> None:
        self._quiet_until: dict[tuple[str, str], datetime] = {}

    def __call__(self, heartbeats: Heartbeats, now: datetime, notifier: Notifier) -> int:
        found = 0
        for client, strategy, count in heartbeats.bursts(BURST_WITHIN, BURST):
            if is_quiet(self._quiet_until.get((client, strategy)), now, BURST_WITHIN):
                continue
            self._quiet_until[client, strategy] = now + BURST_WITHIN
            minutes = int(BURST_WITHIN.total_seconds() // 60)
            text = (
                f"{name_of(client, strategy)}: {count} alerts within {minutes} minutes; "
                f"TradingView stops an alert that fires {TRADINGVIEW_STOPS_AT} times in that time"
            )
            notifier.notify("alert_burst", text)
            found += 1
        return found
