"""Whether the exchange trades now, by the broker's own word, asked for rarely."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.alert import IST, Exchange
from app.domain.checks import OPENS
from app.domain.deadline import Deadline
from app.domain.session import is_trading_day
from app.errors import ServiceError
from app.service.ports import Broker, Clock

log = logging.getLogger(__name__)

GOOD_FOR_S = 15.0
"""An opening or a closing is known that much later at most; then it is four calls a minute of the broker's 200."""
CLOSED_FOR_S = 1.0
"""A "closed" from the opening of a trading day on: an exit that it stops is not sent again. A call a second at most, and
only while alerts come.
"""
ASK_S = 0.2
"""Nobody waits longer for it: an exit must not miss its time because a status hangs. Under what the guard takes for a
fair time, so that the wait tells nothing of the broker's health either.
"""
BAD_FOR_S = 5.0
"""Until it is asked for again after it could not be read."""


@dataclass
class MarketHours:
    """A process's memory of the broker's word. Safe for many threads; two at once may both ask.

    A "closed" is never kept past an opening, and hardly after it: an evening's session begins when it likes.
    """

    broker: Broker
    clock: Clock
    _known: dict[Exchange, tuple[float, bool | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self, exchange: Exchange, deadline: Deadline) -> bool | None:
        """None: the broker does not say, or could not be asked. The master row's session decides then."""
        now, asked_at = self.clock.monotonic(), self.clock.now()
        with self._lock:
            until, word = self._known.get(exchange, (now, None))
        if now < until:
            return word
        word, good_for_s = None, BAD_FOR_S
        try:
            with self.broker.exchange(Deadline(min(deadline.at, now + ASK_S))) as exchanger:
                word, good_for_s = exchanger.market_open(exchange), GOOD_FOR_S
        except ServiceError as error:
            log.warning("the market's status could not be read: %s", error.code)
        until = self.clock.monotonic() + good_for_s
        if word is False:  # of when it was asked for: it may have opened since
            until = now + _closed_for_s(asked_at)
        with self._lock:
            self._known[exchange] = (until, word)
        return word


def _closed_for_s(at: datetime) -> float:
    """How long a "closed" that was asked for at this time is good."""
    day = at.astimezone(IST).date()
    if not is_trading_day(day):
        return GOOD_FOR_S
    opens_in_s = (datetime.combine(day, OPENS, IST) - at).total_seconds()
    return min(GOOD_FOR_S, opens_in_s) if opens_in_s > 0 else CLOSED_FOR_S
