"""Failed authentications, counted by address in this process: whoever goes on failing is refused in few bytes.

Only failures are counted and only failures are refused. All TradingView users share four addresses, so an attacker
there must never cost the trader an alert: a valid token is looked at first, and nothing here can stop it.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

FREE_FAILURES = 20
"""A person mistypes, and a strategy with an old token fires a few times, before anybody is slowed."""
FAILURES_PER_MINUTE = 10
ADDRESSES = 4096
"""Remembered at most, the longest silent forgotten first: under half a megabyte."""
FREE_RECORDS = 100
RECORDS_PER_SECOND = 2.0
"""Refusals of strangers that are written down: a flood of them must not queue before the trader's order."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Allowance:
    """A bucket per key: `burst` at once, `per_second` after that. Bounded in memory; safe between threads."""

    def __init__(
        self, monotonic: Callable[[], float], burst: int, per_second: float, keys: int = ADDRESSES
    ) -> None:
        self._monotonic, self._burst, self._per_second, self._keys = monotonic, burst, per_second, keys
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str = "") -> float:
        """Take one; 0 when there was one, else the seconds until there is."""
        now = self._monotonic()
        with self._lock:
            bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
            self._buckets[key] = bucket
            if len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
            bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
            bucket.at = now
            if bucket.left >= 1:
                bucket.left -= 1
                return 0.0
            return (1 - bucket.left) / self._per_second

    def __len__(self) -> int:
        return len(self._buckets)


class Failures:
    """What is left to an address before its failures are refused."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.addresses = Allowance(monotonic, FREE_FAILURES, FAILURES_PER_MINUTE / 60)
        self._records = Allowance(monotonic, FREE_RECORDS, RECORDS_PER_SECOND, keys=1)

    def count(self, address: str) -> int | None:
        """One more failure. None: answer it as what it was; else the whole seconds to tell it to wait."""
        wait_s = self.addresses.take(key_of_address(address))
        return math.ceil(wait_s) if wait_s > 0 else None

    def may_record(self) -> bool:
        """Whether one more refusal of a sender who is not known may be written down."""
        return self._records.take() == 0.0


def key_of_address(address: str) -> str:
    """One key for an IPv6 /64, which one sender has for himself; one for all that is no address."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or ip_network((int(found), 64), strict=False))
    return str(found)
