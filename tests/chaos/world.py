"""The real service on the simulated broker, in whatever process this is built; only its clock can be set."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from app import wiring
from app.domain.order import Mode
from app.errors import ServiceError
from app.factory import create_app
from app.settings import Settings
from app.store import engine
from app.store.engine import Database
from app.wiring import build
from tests.chaos.fork import Report
from tests.chaos.points import TRACER, unreachable
from tests.chaos.simulator import Door

WEBHOOK, ADMIN, PREFIX = "webhook-token-of-chaos", "admin-token-of-chaos", "KAOS"
SESSION = "session-secret-of-chaos-runs-only"
OPENING = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)
"""A Wednesday, 10:00 IST: hours of the same IST date lie ahead, which NOT_PLACED can only be proven on."""
UNSETTLED = frozenset({"SENDING", "IN_DOUBT", "EXIT_PENDING", "NOT_SENT"})
PASSES = 12
STEP_S = 25.0
"""Between passes. Five readings over ninety seconds is the rule for NOT_PLACED; four of these are a hundred."""
RESEND_S = 5.0
"""TradingView's own pause before it sends an alert again."""
RESENDS = 3
RESEND_WITHIN = timedelta(seconds=20)
"""TradingView gives up after 15; an alert without a key that came after 40 would be another alert."""


class SetClock:
    """The machine's time moved by an offset that all forks share, so that time goes by for a stopped one too. Its
    monotonic side, which deadlines are on, is the machine's.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)
        self.open()

    def open(self) -> None:
        """It is `OPENING`."""
        self._set((OPENING - datetime.now(UTC)).total_seconds())

    def advance(self, seconds: float) -> None:
        self._set(self._offset + seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._offset)

    @property
    def _offset(self) -> float:
        return float(struct.unpack("d", self._shared[:8])[0])

    def _set(self, seconds: float) -> None:
        self._shared[:8] = struct.pack("d", seconds)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Sent:
    """An alert as TradingView posts it, and the order that it means, as the broker must see it (without its tag)."""

    name: str
    body: dict[str, Any]
    means: dict[str, Any]

    @property
    def place(self) -> tuple[str, int]:
        """(symbol, side): no two alerts of a run share it, so that an order in the ledger tells its alert."""
        return self.means["symbol"], self.means["side"]

    @property
    def keyed(self) -> bool:
        return "idempotency_key" in self.body


@dataclass
class World:
    """One process of the service, as a test sees it: alerts in, passes of the reconciler, time."""

    directory: Path
    database: Database
    clock: SetClock
    door: Door
    app_id: str
    report: Report
    deadline_s: float = 2.5
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from everybody's."""

    def __post_init__(self) -> None:
        url = self.door.root_url
        database_url = self.database.engine.url.render_as_string(hide_password=False)
        settings = _settings(database_url, self.directory).model_copy(
            update={
                "fyers_app_id": self.app_id,
                "request_deadline_seconds": self.deadline_s,
                "fyers_api_url": f"{url}/api/v3",
                "fyers_data_url": f"{url}/data",
                **self.changes,
            }
        )
        with (
            _instead(wiring, "SystemClock", lambda: self.clock),
            _instead(engine, "Database", lambda *_: self.database),
        ):
            ports = build(settings)
        self.ports = ports
        self.app = create_app(settings, ports)
        self.client = self.app.test_client()

    def advance(self, seconds: float) -> None:
        """Time passes, here and at the broker."""
        self.clock.advance(seconds)
        self.door.call("advance", seconds=seconds)

    def deliver(self, sent: Sent) -> int:
        """Post an alert once; the HTTP status."""
        answer = self.client.post("/webhook", json=sent.body)
        said = answer.get_json(silent=True) or {}
        self.report(
            {
                "answer": sent.name,
                "status": answer.status_code,
                "state": said.get("state") or said.get("code"),
                "detail": said.get("detail"),
            }
        )
        return answer.status_code

    def refused(self, sent: Sent) -> int:
        """Post an alert whose order does not get through to the broker: provably nothing is sent."""
        TRACER.trouble = unreachable("place ", times=1)
        try:
            return self.deliver(sent)
        finally:
            TRACER.trouble = None

    def one_pass(self) -> None:
        """One pass of the reconciler; a failed one is a pass that did nothing."""
        try:
            self.app.extensions["reconcile"]()
        except ServiceError as error:
            self.report({"failed_pass": error.code, "detail": error.detail})

    def settle(self) -> None:
        """Passes with time and trade going by, until every row is settled or nothing more is to be expected."""
        for _ in range(PASSES):
            if not any(row["state"] in UNSETTLED for row in self.rows()):
                return
            self.advance(STEP_S)
            self.door.call("place_by_hand", ticker="NSE:SBIN-EQ", side=1, qty=1)
            self.one_pass()

    def rows(self) -> list[dict[str, Any]]:
        """The orders as the API shows them. Not part of what is killed."""
        armed, trouble = TRACER.armed, TRACER.trouble
        TRACER.armed, TRACER.trouble = False, None
        answer = self.client.get("/api/v1/orders?limit=200", headers={"Authorization": f"Bearer {ADMIN}"})
        TRACER.armed, TRACER.trouble = armed, trouble
        found: list[dict[str, Any]] = answer.get_json()["orders"]
        return found

    def story(self, order_id: str) -> list[str]:
        """The kinds of an order's events, oldest first."""
        path = f"/api/v1/orders/{order_id}"
        answer = self.client.get(path, headers={"Authorization": f"Bearer {ADMIN}"})
        return [event["event"] for event in answer.get_json()["events"]]

    def recover(self, again: list[Sent]) -> None:
        """What follows a crash: start, the alerts come again on TradingView's schedule, passes until settled."""
        self.advance(RESEND_S)
        self.report({"found": self.rows()})
        early = self.clock.now() - OPENING < RESEND_WITHIN
        waiting = again if early else [sent for sent in again if sent.keyed]
        for _ in range(RESENDS):
            waiting = self._again(waiting)
            if waiting:
                self.advance(RESEND_S)
            self.one_pass()
            if not waiting:
                break
        self.settle()
        self._again([sent for sent in again if sent.keyed])  # a key of the sender's holds all day
        self.report({"rows": self.rows()})

    def _again(self, waiting: list[Sent]) -> list[Sent]:
        """Deliver each; those that are still to come again."""
        return [sent for sent in waiting if (status := self.deliver(sent)) == 409 or status >= 500]

    def close(self) -> None:
        """No connection to the database is left, so that a fork inherits none."""
        self.database.close()


@cache
def _settings(database_url: str, directory: Path) -> Settings:
    """What is the same in every run, read and checked once before the forks."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        trading_mode=Mode.LIVE,
        database_url=database_url,
        fyers_app_id="XCHAOS-200",
        fyers_access_token="t",  # type: ignore[arg-type]
        fyers_api_url="http://127.0.0.1:9/api/v3",
        webhook_secret_token=WEBHOOK,  # type: ignore[arg-type]
        admin_token=ADMIN,  # type: ignore[arg-type]
        session_secret=SESSION,  # type: ignore[arg-type]
        order_tag_prefix=PREFIX,
        instance_dir=directory,
        webhook_max_qty=2,
        # A run does in a second what a day brings; the budget of calls has tests of its own.
        fyers_calls_per_second=10**6,
        fyers_calls_per_minute=10**6,
        log_level="ERROR",
    )


@contextmanager
def _instead(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
