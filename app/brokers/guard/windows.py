"""One window of the budget of calls, as Redis counts it and as a process counts it by itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SLACK_S = 2.0
"""A call is counted before it is made, and may reach the broker up to a request's deadline later."""
SECOND_SLACK_S = 0.05
AHEAD_S = 60.0
"""No two instances' clocks are so far apart: a time that is further ahead was written by a clock since set right."""
MINUTE_S = 60 + SLACK_S
SECOND_S = 1 + SECOND_SLACK_S
KEPT_BACK = 5
"""One part in five is kept for cancel, exit and reconcile."""

SCRIPT = """
local now, id, ttl = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local hash, n = KEYS[1], #KEYS - 2
local ahead = now + tonumber(ARGV[7])
local epoch = tonumber(redis.call('hget', hash, 'trouble') or '')
if ARGV[4] == '1' or not epoch or epoch > ahead then
  epoch = now
  redis.call('hset', hash, 'trouble', ARGV[1])
end
if tonumber(redis.call('hget', hash, 'blocked_at') or '0') > ahead then redis.call('hdel', hash, 'blocked') end
local blocked = redis.call('hget', hash, 'blocked') or '0'
local breaches = redis.call('hget', hash, 'breaches:' .. ARGV[5]) or '0'
local out = {tostring(epoch), blocked, breaches, '0'}
if tonumber(blocked) > now then return out end
if tonumber(redis.call('get', KEYS[2]) or '0') >= tonumber(ARGV[6]) then
  out[4] = '3600'
  return out
end
for i = 1, n do
  local key, most, width = KEYS[i + 2], tonumber(ARGV[6 + 2 * i]), tonumber(ARGV[7 + 2 * i])
  redis.call('zremrangebyscore', key, '-inf', now - width)
  redis.call('zremrangebyscore', key, '(' .. ahead, '+inf')
  local used = redis.call('zcard', key)
  if used >= most then
    local first = redis.call('zrange', key, used - most, used - most, 'WITHSCORES')
    out[4] = tostring(math.max(tonumber(first[2] or ARGV[1]) + width - now, 0.001))
    return out
  end
end
for i = 1, n do
  redis.call('zadd', KEYS[i + 2], now, id)
  redis.call('expire', KEYS[i + 2], ttl)
end
redis.call('incr', KEYS[2])
redis.call('expire', KEYS[2], 172800)
return out
"""
"""Counts a call in all windows or in none. Gives: when Redis was last in trouble, until when the broker asked to wait,
its 429 of the day, and seconds to wait (0: counted). KEYS: state, the day's count, a sorted set per window."""


@dataclass(slots=True, eq=False)
class Window:
    name: str
    limit: int
    width_s: float
    processes: int
    times: deque[float]

    @property
    def shared_limit(self) -> int:
        """What Redis gives out: of a minute not the fifth that processes go on with when it is lost."""
        keeps = self.processes > 1 and self.width_s > SECOND_S
        return self.limit - self.limit // KEPT_BACK if keeps else self.limit

    def own(self, now: float, lost_at: float) -> tuple[int, float]:
        """How many calls in how many seconds this process may make by itself."""
        if self.processes > 1 and now - lost_at < self.width_s:
            return (self.limit - self.shared_limit) // self.processes, now - lost_at
        share = self.limit // self.processes
        if share:
            return share, self.width_s
        return 1, self.width_s * math.ceil(self.processes / self.limit)

    def wait_s(self, now: float, most: int, width_s: float) -> float:
        """Zero when one more fits into the last `width_s`, else until it does."""
        if len(self.times) < most:  # as nearly always: none of them has to be looked at
            return 0.0
        recent = [t for t in self.times if t >= now - width_s]
        if len(recent) < most:
            return 0.0
        if not most:
            return max(self.width_s - width_s, 0.001)
        return max(recent[-most] + width_s - now, 0.001)

    def ready_in(
        self, now: float, calls: int, lost_at: float, shared: Sequence[float] | None = None
    ) -> float:
        """Seconds until the last of so many further calls fits, each made as soon as it does. `shared`: the times of all
        instances' calls, where Redis decides.
        """
        most, width_s = self.own(now, lost_at) if shared is None else (self.shared_limit, self.width_s)
        at = now
        if not most:
            at = lost_at + self.width_s + 0.001
            most, width_s = self.own(at, lost_at)
        times = sorted(self.times if shared is None else shared)
        for _ in range(calls):
            recent = [t for t in times if t > at - width_s]
            if len(recent) >= most:
                at = recent[-most] + width_s
            times.append(at)
        return at - now

    def left(self, now: float) -> int:
        """Of this process's share, by its own count."""
        recent = sum(t >= now - self.width_s for t in list(self.times))
        return max(0, self.limit // self.processes - recent)

    def set_right(self, back_s: float) -> None:
        """The clock was ahead by so much when the calls were noted."""
        self.times = deque(t - back_s for t in self.times)

    def note(self, now: float) -> None:
        while len(self.times) >= self.limit:
            self.times.popleft()
        self.times.append(now)


def part(limit: int, *, reserved: bool) -> int:
    """Without the part that is kept for cancel, exit and reconcile."""
    return limit if reserved else limit - limit // KEPT_BACK
