"""Redis for what instances share, never for what an alert depends on: short time-outs, and a rest after a failure.

A Redis that hangs costs one thread its time-outs once in each rest; everybody else goes on without it at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from app.service.observe import phase

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

TIMEOUT_S = 0.1
"""For the connection and for each answer. Without them a hung Redis hangs its callers for good."""
REST_S = 1.0
"""How long nobody asks a Redis that has just failed."""

_T = TypeVar("_T")


def connect(url: str) -> Redis:
    """A client that fails within its time-outs. The library's own repeats are off: each would cost them again."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class SharedRedis:
    """`ask` gives None when Redis is away; which is no answer, and never an empty one."""

    def __init__(self, client: Redis, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client, self._monotonic = client, monotonic
        self._away_until: float | None = None
        self._first = threading.Lock()

    def ask(self, work: Callable[[Any], _T]) -> tuple[_T] | None:
        """What `work` got from Redis, in a tuple of one, so that a None of its own can be told from no answer."""
        from redis.exceptions import RedisError

        back = self._away_until
        if back is None:
            return self._try(work, RedisError)
        # One thread finds out whether it is back; the others do not pay for that.
        if self._monotonic() < back or not self._first.acquire(blocking=False):
            return None
        try:
            return self._try(work, RedisError)
        finally:
            self._first.release()

    def _try(self, work: Callable[[Any], _T], error_class: type[Exception]) -> tuple[_T] | None:
        try:
            with phase("redis"):
                found = work(self._client)
        except (error_class, OSError) as error:
            if self._away_until is None:
                log.warning("redis is away, this process goes by what it knows itself: %s", error)
            self._away_until = self._monotonic() + REST_S
            return None
        if self._away_until is not None:
            log.warning("redis is back")
            self._away_until = None
        return (found,)
