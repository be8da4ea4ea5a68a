"""Whether the exchange trades now, by the broker's own word, asked for rarely."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.errors import ServiceError
from app.service.ports import Broker, Clock

log = logging.getLogger(__name__)

GOOD_FOR_S = 15.0
"""An opening or a closing is known that much later at most; then it is four calls a minute of the broker's 200."""
ASK_S = 0.2
"""Nobody waits longer for it: an exit must not miss its time because a status hangs. Under what the guard takes for a
fair time, so that the wait tells nothing of the broker's health either.
"""
BAD_FOR_S = 5.0
"""Until it is asked for again after it could not be read."""


@dataclass
class MarketHours:
    """A process's memory of the broker's word. Safe for many threads; two at once may both ask."""

    broker: Broker
    clock: Clock
    _known: dict[Exchange, tuple[float, bool | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self, exchange: Exchange, deadline: Deadline) -> bool | None:
        """None: the broker does not say, or could not be asked. The master row's session decides then."""
        now = self.clock.monotonic()
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
        with self._lock:
            self._known[exchange] = (self.clock.monotonic() + good_for_s, word)
        return word
