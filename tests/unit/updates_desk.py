"""One process that listens to the order websocket, on a real store and a real wire to the simulator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Any

from app.brokers.fyers.order_socket import OrderSocket, Pace
from app.domain.order import Order
from app.domain.status import Status
from app.jobs.order_updates import OrderUpdates
from app.service.order_feed import OrderFeed
from app.service.reconcile import Pass
from app.settings import load
from app.web.ports import Ports
from tests.wire_desk import SCOPE, WireDesk

WITHIN_S = 10.0
QUICK = Pace(first_wait=0.01, most_wait=0.04, look=0.02)


class Given:
    """A token that a test can change."""

    token: str | None = "t"

    def current(self, now: datetime) -> str | None:
        return self.token


class Instance:
    """One process, and when it made which pass."""

    def __init__(self, desk: WireDesk, url: str = "", **pace: float) -> None:
        self.desk, self.tokens = desk, Given()
        self.passes: list[tuple[float, tuple[str, str] | None]] = []
        self.failed = 0
        self.during: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        nothing: Any = None
        self.ports = Ports(
            settings=load(reconcile_interval_seconds=60),
            clock=desk.clock,
            store=desk.store,
            broker=desk.broker,
            contracts=desk.contracts,
            scope=SCOPE,
            tokens=self.tokens,
            notifier=desk.notifier,
            reconcile=self._reconcile,
            desk=lambda: desk.desk,
            clients=nothing,
        )
        self.feed = OrderSocket(url, "X-200", self.tokens, desk.clock, lambda _: None, QUICK)
        self.updates = OrderUpdates(self.ports, self.feed, **{"gap_s": 0.05, "gather_s": 0.02} | pace)

    def _reconcile(self, lease: tuple[str, str] | None) -> Pass:
        began = monotonic()
        try:
            self.desk.reconcile.lease = lease
            done = self.desk.reconcile()
        except Exception:
            self.failed += 1
            raise
        else:
            self.during()
            return done
        finally:
            with self._changed:
                self.passes.append((began, lease))
                self._changed.notify_all()

    def wait(self, is_so: Callable[[], bool]) -> bool:
        """After each pass."""
        with self._changed:
            return self._changed.wait_for(is_so, WITHIN_S)

    def becomes(self, order: Order, status: Status) -> bool:
        return self.wait(lambda: self.desk.row(order).status is status)

    def stop(self) -> None:
        self.updates.stop()
        if self.updates.thread.ident is not None:
            self.updates.thread.join(WITHIN_S)
        assert not self.updates.thread.is_alive()
        assert self.feed.join(2)


class Bell(OrderFeed):
    """A feed that the test rings itself."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None
        self.started = threading.Event()

    def start(self, wake: Callable[[], None]) -> None:
        self.ring = wake
        self.started.set()

    def stop(self) -> None:
        self.started.clear()

    def problem(self) -> str | None:
        return None
