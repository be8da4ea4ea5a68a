"""The whole web layer on a desk of fakes, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from werkzeug.test import TestResponse

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.factory import create_app
from app.runtime import SettingsRules
from app.service.beside import Beside
from app.service.config import Config
from app.service.health import Check, Checks
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from app.service.records import OrderFilter, OrderPage, Refusal
from app.settings import Settings
from app.web.ports import Ports
from tests.builders import SCOPE
from tests.fake_beside import FakeHeartbeats, FakeJobRuns
from tests.fake_clients import FakeClients
from tests.fake_config import FakeConfigStore
from tests.fakes import FakeStore
from tests.service.desk import TradingDesk

TOKEN, ADMIN = "desk-webhook-token", "desk-admin-token"
ALERT: dict[str, Any] = {
    "symbol": "NIFTY",
    "strikeprice": 24500,
    "optionType": "CE",
    "expiry": "WEEKLY",
    "action": "BUY",
    "lots": 1,
}


class PatientChecks(Checks):
    """On a busy machine a check's thread may come late, and "slow" is not what these tests are about."""

    def __init__(self, checks: tuple[Check, ...], monotonic: Callable[[], float]) -> None:
        super().__init__(tuple(replace(check, timeout_s=60) for check in checks), monotonic)


class Store(FakeStore):
    """Down for look-ups too."""

    def list_orders(self, scope: Any, wanted: OrderFilter) -> OrderPage:
        self._up()
        return super().list_orders(scope, wanted)

    def list_refusals(self, scope: Any, limit: int) -> tuple[Refusal, ...]:
        self._up()
        return super().list_refusals(scope, limit)

    def record_refusal(self, scope: Any, refusal: Refusal, deadline: Deadline | None = None) -> None:
        if self.down:
            raise StoreUnavailable("the database is down")
        super().record_refusal(scope, refusal, deadline)


class WebDesk(TradingDesk):
    """A service that answers requests; `settings` as in the environment."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__()
        self.store = Store(self.clock, SCOPE)
        self.clients = FakeClients(self.clock)
        self.heartbeats, self.runs = FakeHeartbeats(self.clock), FakeJobRuns(self.clock)
        self.beside = Beside(self.heartbeats, self.runs, lambda: "nothing to tell", lambda: 0, lambda _: True)
        self.desk = replace(self.desk, store=self.store)
        self.service, self.reconcile = PlaceOrder(self.desk), Reconcile(self.desk)
        self.configs = FakeConfigStore(self.clock)
        given = {"webhook_secret_token": TOKEN, "admin_token": ADMIN, "instance_dir": directory}
        made = Settings.model_validate(given | settings)
        self.config = Config(self.configs, SCOPE, self.clock, SettingsRules(made), self.notifier)
        with mock.patch("app.service.health.Checks", PatientChecks):
            self.app = create_app(
                ports=Ports(
                    settings=made,
                    clock=self.clock,
                    store=self.store,
                    broker=self.broker,
                    contracts=self.contracts,
                    scope=SCOPE,
                    tokens=None,  # type: ignore[arg-type] # no route of these tests asks for it
                    notifier=self.notifier,
                    reconcile=lambda _: self.reconcile(),
                    desk=lambda: self.desk,
                    clients=self.clients,
                    beside=self.beside,
                    config=self.config,
                    trials=self.configs,
                )
            )
        self.client = self.app.test_client()

    def webhook(self, body: bytes | None = None, headers: Any = None, **fields: Any) -> TestResponse:
        """One alert: raw, or the usual one with some fields changed (`...` takes one out)."""
        values = {k: v for k, v in {"token": TOKEN, **ALERT, **fields}.items() if v is not ...}
        raw = json.dumps(values).encode() if body is None else body
        return self.client.post("/webhook", data=raw, headers=headers)

    def api(self, method: str, path: str, token: str = ADMIN, body: Any = ALERT) -> TestResponse:
        data = None
        if method.upper() in ("POST", "PUT"):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.open(path, method=method.upper(), data=data, headers=headers)
