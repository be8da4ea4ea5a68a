"""Host names to addresses, within a deadline."""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any

FRESH_SECONDS = 60.0
"""As long as this an answer is used as it is."""

STALE_SECONDS = 3600.0
"""As long as this an older answer is still used, while a new one is fetched beside it: a name server that hangs must
not cost an order. TLS says whether the address is still the broker's, and a failed connect forgets it.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[Address, ...]
    since: float


class Resolver:
    """A cache in front of getaddrinfo, safe for many threads.

    getaddrinfo cannot be interrupted, so it runs on a daemon thread and only the wait for it is bounded. There is at
    most one such thread per name: a name server that hangs costs one thread, not one per alert.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _Known] = {}
        self._running: dict[tuple[str, int], Future[tuple[Address, ...]]] = {}

    def addresses(self, host: str, port: int, wait_s: float) -> tuple[Address, ...]:
        """At least one address. Raises TimeoutError after `wait_s`, or socket.gaierror."""
        if _is_literal(host):
            return _ask(host, port)
        key = (host, port)
        with self._lock:
            known = self._known.get(key)
            age = monotonic() - known.since if known else float("inf")
            if known and age < FRESH_SECONDS:
                return known.addresses
            running = self._running.get(key) or self._start(key)
        if known and age < STALE_SECONDS:
            return known.addresses
        return running.result(wait_s)

    def forget(self, host: str, port: int) -> None:
        """The addresses did not answer: ask anew next time."""
        with self._lock:
            self._known.pop((host, port), None)

    def _start(self, key: tuple[str, int]) -> Future[tuple[Address, ...]]:
        """Under the lock, which the thread needs before it is done. Without a thread the answer is an OSError."""
        answer: Future[tuple[Address, ...]] = Future()
        try:
            threading.Thread(target=self._resolve, args=(key, answer), name="resolve", daemon=True).start()
        except RuntimeError as error:  # "can't start new thread": the next one asks anew
            answer.set_exception(OSError(str(error)))
        else:
            self._running[key] = answer
        return answer

    def _resolve(self, key: tuple[str, int], answer: Future[tuple[Address, ...]]) -> None:
        try:
            addresses = _ask(*key)
        except (OSError, UnicodeError) as error:
            with self._lock:
                self._running.pop(key, None)
            answer.set_exception(error if isinstance(error, OSError) else OSError("not a host name"))
            return
        with self._lock:
            self._known[key] = _Known(addresses, monotonic())
            self._running.pop(key, None)
        answer.set_result(addresses)


def _ask(host: str, port: int) -> tuple[Address, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(Address(family, sockaddr) for family, _, _, _, sockaddr in found)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
