"""The lost-alert watch: strategies that say regularly that they live, and alerts that TradingView is about to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Protocol

from app.domain.alert import IST
from app.domain.session import is_trading_day
from app.service.ports import Notifier

OPENS, CLOSES = time(9, 15), time(15, 30)
"""IST. A chart of NSE has no bars outside, and an alert on it cannot fire."""
LATE_FACTOR, LATE_SECONDS = 1.5, 30
SHORTEST_S, LONGEST_S = 60, 21_600
"""TradingView's own minute, and about a session: a longer one could not be missed on the same day."""
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

    def missed(self, one: Watched, tell: Notifier, message: str) -> bool:
        """Mark it and tell, in one transaction. False: another heartbeat has come, or it was marked already."""

    def bursts(self, within: timedelta, more_than: int) -> Sequence[tuple[str, str, int]]:
        """Client, strategy and number of alerts of those with more alerts than that."""


def allowed(every_seconds: int) -> timedelta:
    """How long after a heartbeat the next one is missing."""
    return timedelta(seconds=LATE_FACTOR * every_seconds + LATE_SECONDS)


def is_missing(one: Watched, now: datetime) -> bool:
    """Counted within the day's session only: from its opening, or the last heartbeat when that came later."""
    local = now.astimezone(IST)
    if not is_trading_day(local.date()) or not OPENS <= local.time() < CLOSES:
        return False
    opened = datetime.combine(local.date(), OPENS, IST)
    return now - max(one.last_at, opened) > allowed(one.every_seconds)


def name_of(client: str, strategy: str) -> str:
    return f"strategy {strategy or 'without a name'} of {client}"


def watch_heartbeats(heartbeats: Heartbeats, now: datetime, notifier: Notifier) -> int:
    """Tell of each that went missing, once. Returns how many."""
    told = 0
    for one in heartbeats.watched():
        if one.missing_since is not None or not is_missing(one, now):
            continue
        last = f"{one.last_at.astimezone(IST):%d %b %H:%M:%S} IST"
        text = (
            f"{name_of(one.client, one.strategy)}: its heartbeat, due every {one.every_seconds} s, came last at {last}: "
            "look whether TradingView has stopped or lost the alert"
        )
        told += heartbeats.missed(one, notifier, text)
    return told


def beat(heartbeats: Heartbeats, came: Beat, notifier: Notifier) -> None:
    """A heartbeat has come."""
    if heartbeats.came(came):
        notifier.notify("heartbeat_back", f"{name_of(came.client, came.strategy)}: its heartbeat is back")


class BurstWatch:
    """Warns before TradingView stops an alert; one warning for each burst, as this process sees it."""

    def __init__(self) -> None:
        self._quiet_until: dict[tuple[str, str], datetime] = {}

    def __call__(self, heartbeats: Heartbeats, now: datetime, notifier: Notifier) -> int:
        found = 0
        for client, strategy, count in heartbeats.bursts(BURST_WITHIN, BURST):
            if self._quiet_until.get((client, strategy), now) > now:
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
