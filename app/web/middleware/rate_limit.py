"""How many requests: Flask-Limiter, a moving window in Redis, or in this process while Redis is away.

A client is counted by its name, once it is known. An address is counted only for what did not authenticate: all
TradingView users share four addresses, and somebody there must not use up what the trader needs. Wrong tokens are
counted in `failures.py`; here are the routes that ask for no token, and logins at the form.

Alerts: entries have the limit of RATE_LIMIT_WEBHOOK. An EXIT never counts among them, and an alert that finds them
full is looked at again: a repeat of a known key and a BUY or SELL that closes what is held go by counters of their
own. So a flood of entries stops entries.

A Redis that is down or hangs costs a request one time-out (100 ms, once more where the answer's headers were about
to be read from it); then this process counts by itself, up to its share of 1/EXPECTED_PROCESSES, and asks again
after 1, 2, 4 … seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import parse_many
from limits.storage import MemoryStorage

from app.domain.alert import Action, Alert
from app.errors import TooManyRequests
from app.service.urgent import Urgency
from app.settings import Settings
from app.web.middleware.authentication import Caller
from app.web.middleware.failures import key_of_address

REDIS_TIMEOUT_S = 0.06
URGENT = "300 per minute"
"""Exits, and repeats, of one client: what a busy desk can mean, and an end for a loop."""
BEATS = "300 per minute"
"""Heartbeats of one client, on their own: a page that is looked at too often must not make a strategy seem dead."""
API = "300 per minute"
"""Everything else that a known client asks: a page of orders each second, and then some."""
OPEN = "120 per minute"
"""Pages that ask for no token, by address."""
FAILED_LOGINS = "10 per 10 minutes"
"""Wrong tokens at the login form, by address. A right one always passes."""

ALWAYS, ALERT, BY_ADDRESS = "always", "alert", "address"
NOT_BY_CLIENT: dict[str, str] = {
    "ops.healthz": ALWAYS,
    "ops.readyz": ALWAYS,
    "ops.readyz_orders": ALWAYS,
    "control.set_state": ALWAYS,
    "kill.kill": ALWAYS,
    "webhook.webhook": ALERT,
    "orders.place": ALERT,
    "openapi.openapi": BY_ADDRESS,
    "fyers_login.show": BY_ADDRESS,
    "fyers_login.start": BY_ADDRESS,
    "fyers_login.leave": BY_ADDRESS,
    "fyers_login.callback": BY_ADDRESS,
}
"""How a route is counted that is not counted by its client. A test holds that all others ask who it is."""

SWEEP_S = 1.0
WhatIsUrgent = Callable[[Alert], Urgency | None]


class SweptMemory(MemoryStorage):
    """The library's, which starts a thread at nearly every count to sweep 10 ms later: here it sweeps once a second."""

    STORAGE_SCHEME = ["swept-memory"]  # noqa: RUF012 - as the library declares it

    @property  # an attribute in the library, which starts each timer after it has set it
    def timer(self) -> threading.Timer:
        return self._sweep

    @timer.setter
    def timer(self, timer: threading.Timer) -> None:
        timer.interval, timer.daemon = SWEEP_S, True  # its last second must not keep the process
        self._sweep = timer


def storage_of(redis_url: str) -> tuple[str, dict[str, Any]]:
    """The address and options of Flask-Limiter's storage. Asks Redis nothing."""
    if not redis_url:
        return "swept-memory://", {}
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    url = f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url
    # The library's own repeats would each cost the time-outs again.
    options = {"retry": Retry(NoBackoff(), 0), "protocol": 2}
    return url, options | dict.fromkeys(("socket_connect_timeout", "socket_timeout"), REDIS_TIMEOUT_S)


class RateLimits:
    """The counters of all routes. Every method raises TooManyRequests, and nothing else on Redis' account."""

    def __init__(self, app: Flask, settings: Settings, address: Callable[[Request], str]) -> None:
        self._address, self._processes = address, settings.processes
        url, options = storage_of(settings.redis_url)
        self._limiter = Limiter(
            lambda: str(g.rate_key),
            app=app,
            storage_uri=url,
            storage_options=options,
            strategy="moving-window",
            in_memory_fallback_enabled=True,
            headers_enabled=False,  # its Retry-After would stand in every answer
            swallow_errors=True,
            key_prefix="rate",
        )
        self.of_entries: Callable[[], str] = lambda: settings.rate_limit_webhook
        """RATE_LIMIT_WEBHOOK as it is in force."""
        self._entry = self._counter("entry", lambda: self.of_entries())  # noqa: PLW0108 - looked up at the call
        self._urgent = {u: self._counter(u.value, lambda: URGENT) for u in Urgency}
        self._beat = self._counter("beat", lambda: BEATS)
        self._client = self._counter("client", lambda: API)
        self._open = self._counter("open", lambda: OPEN)
        self._login = self._counter("login", lambda: FAILED_LOGINS)
        app.before_request(self._before)
        app.after_request(self._headers)

    def client(self, caller: Caller) -> None:
        """One request of a sender who is known. An alert is counted once it is read."""
        if request.endpoint not in NOT_BY_CLIENT:
            self._client(caller.client)

    def alert(self, alert: Alert, urgency: WhatIsUrgent) -> None:
        """One alert that is about to go to the service."""
        if alert.action is Action.EXIT:
            self._urgent[Urgency.EXIT](alert.client)
            return
        try:
            self._entry(alert.client)
        except TooManyRequests:
            found = urgency(alert)
            if found is None:
                raise
            self._urgent[found](alert.client)

    def refused(self, client: str) -> None:
        """One alert of a known sender that could not be read, or not taken."""
        self._client(client)

    def heartbeat(self, client: str) -> None:
        """One heartbeat that is about to be kept."""
        self._beat(client)

    def failed_login(self) -> None:
        """One wrong token at the login form."""
        self._login(key_of_address(self._address(request)))

    def _before(self) -> None:
        if NOT_BY_CLIENT.get(request.endpoint or "") == BY_ADDRESS:
            self._open(key_of_address(self._address(request)))

    def _counter(self, name: str, limits: Callable[[], str]) -> Callable[[str], None]:
        """A function that counts one for a key. Flask-Limiter tells decorated functions apart by their names."""

        def count() -> None:
            return None

        count.__qualname__ = f"RateLimits.{name}"
        counted = self._limiter.shared_limit(lambda: self._share(limits()), scope=name)(count)

        def one(key: str) -> None:
            g.rate_key = key
            try:
                counted()
            except RateLimitExceeded as error:
                wait_s = self._wait_s() or error.limit.limit.get_expiry()
                raise TooManyRequests(
                    f"expected at most {error.limit.limit} here, was more", retry_after_s=max(1, wait_s)
                ) from None

        return one

    def _share(self, limits: str) -> str:
        """A process that counts by itself has its part of what Redis would give to all."""
        if not isinstance(self._limiter.limiter.storage, MemoryStorage) or self._processes == 1:
            return limits
        parts = ((max(1, i.amount // self._processes), i) for i in parse_many(limits))
        return ";".join(f"{amount} per {i.multiples} {i.GRANULARITY.name}" for amount, i in parts)

    def _wait_s(self) -> int | None:
        limit = self._limiter.current_limit
        try:
            return None if limit is None else int(limit.reset_at - time.time())
        except Exception:  # noqa: BLE001 - Redis went away just now, in whatever way: the whole window is told
            return None

    def _headers(self, response: Response) -> Response:
        limit = self._limiter.current_limit
        if limit is None:
            return response
        try:
            remaining, reset_s = limit.remaining, max(0, int(limit.reset_at - time.time()))
        except Exception:  # noqa: BLE001 - as above: an answer does without these headers, and never fails for them
            return response
        response.headers["RateLimit-Limit"] = str(limit.limit.amount)
        response.headers["RateLimit-Remaining"] = str(remaining)
        response.headers["RateLimit-Reset"] = str(reset_s)
        return response
