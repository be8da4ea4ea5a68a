"""Whose turn it is to find out whether the broker answers again: one read at a time, over all instances."""

from __future__ import annotations

import secrets
import threading

from app.brokers.guard.redis_client import SharedRedis
from app.service.ports import Clock

_GIVE_BACK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
SLACK_S = 0.5
"""Beyond its deadline, before a probe whose process died is given up."""


class ProbeTurn:
    """Taken by one thread of this process, and in Redis by one process. Without Redis: one per process."""

    def __init__(self, clock: Clock, shared: SharedRedis | None, key: str) -> None:
        self._clock, self._shared, self._key = clock, shared, key
        self._here = threading.Lock()
        self._until = 0.0
        self._token = ""

    def take(self, seconds: float) -> str | None:
        """A token for `give_back`, or None: somebody else is at it. It ends by itself after `seconds` and a slack."""
        now, token = self._clock.monotonic(), secrets.token_hex(8)
        with self._here:
            if self._token and now < self._until:
                return None
            self._token, self._until = token, now + seconds + SLACK_S
        if self._shared is not None:
            milliseconds = int((seconds + SLACK_S) * 1000)
            answer = self._shared.ask(lambda r: r.set(self._key, token, nx=True, px=milliseconds))
            if answer is not None and not answer[0]:
                self._free(token)
                return None
        return token

    def give_back(self, token: str) -> None:
        if self._shared is not None:
            self._shared.ask(lambda r: r.eval(_GIVE_BACK, 1, self._key, token))
        self._free(token)

    def _free(self, token: str) -> None:
        with self._here:
            if self._token == token:
                self._token = ""
