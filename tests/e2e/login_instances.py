"""Several instances of the service in one process, on the simulated broker's clock."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import FyersLogin
from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.domain.contract import ist_date
from app.domain.order import Mode, Scope
from app.factory import create_app
from app.service.desk import Desk
from app.service.login import Login
from app.settings import Settings
from app.store.migrate import upgrade
from app.store.sql import connect
from app.store.tokens import StoredTokens
from app.store.tokens_file import FileObject
from app.web.ports import Ports
from tests.builders import a_policy
from tests.fakes import FakeNotifier
from tests.fyers_sim import FyersSim, SimClock, sample_masters
from tests.unit.token_builders import KEY, sealed

APP = "SIMAPP-200"
SCOPE = Scope(Mode.LIVE, APP)
ADMIN = "desk-admin-token"
MORNING = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # a Wednesday, 10:00 IST
SIX = datetime(2026, 9, 10, 0, 30, tzinfo=UTC)  # 06:00 IST the next morning


class Clock:
    """The simulator's time. With `moves` the monotonic clock goes along, for what is polled; deadlines need it real."""

    def __init__(self, sim_clock: SimClock, *, moves: bool = False) -> None:
        self._now, self._moves = sim_clock, moves

    def now(self) -> datetime:
        return self._now()

    def monotonic(self) -> float:
        return (self._now() - MORNING).total_seconds() if self._moves else monotonic()


class Instances:
    """Three instances of the service in this process: one database and one token file, all else their own."""

    def __init__(self, directory: Path, sim: FyersSim, clock: SimClock, stack: ExitStack) -> None:
        self.sim, self.sim_clock, self.notifiers = sim, clock, [FakeNotifier() for _ in range(3)]
        real = Clock(clock)
        url = f"sqlite:///{directory / 'orders.sqlite3'}"
        upgrade(url)
        self._store = connect(url, real)
        stack.callback(self._store.close)
        self._store.ensure_scope(SCOPE)
        self._index = directory / "contracts"
        self._contracts = IndexedContracts(self._index, real)
        stack.callback(self._contracts.close)
        self.load()
        self._numbers = itertools.count(1)
        self.clients = [self._instance(directory, real, notifier, stack) for notifier in self.notifiers]

    def _instance(self, directory: Path, clock: Clock, notifier: FakeNotifier, stack: ExitStack) -> Any:
        sim = self.sim
        tokens = StoredTokens(
            sealed(FileObject(directory / "tokens.json"), KEY),
            APP,
            Clock(self.sim_clock, moves=True),
            notifier,
        )
        client = FyersClient(sim.base_url, sim.data_url, connect_timeout_s=1, read_timeout_s=1.8)
        client.load()
        broker = FyersBroker(client, APP, tokens, clock)
        stack.callback(broker.close)
        desk = Desk(self._store, broker, self._contracts, clock, SCOPE, a_policy(), notifier)
        given = {"admin_token": ADMIN, "webhook_secret_token": "hook", "session_secret": "s" * 40}
        app = create_app(
            ports=Ports(
                settings=Settings.model_validate(given | {"instance_dir": directory}),
                clock=clock,
                store=self._store,
                broker=broker,
                contracts=self._contracts,
                scope=SCOPE,
                tokens=tokens,
                notifier=notifier,
                reconcile=None,  # type: ignore[arg-type] # nobody asks for it
                desk=lambda: desk,
                login=Login(FyersLogin(client, APP, "simsecret", "http://x/fyers/callback"), tokens, clock),
            )
        )
        return app.test_client()

    def load(self) -> None:
        """The master of the day, at the broker and here."""
        self.sim.masters = sample_masters(ist_date(self.sim_clock()))
        build_from_bytes(self._index, dict(self.sim.masters))

    def go_to(self, moment: datetime) -> None:
        self.sim_clock.advance((moment - self.sim_clock()).total_seconds())
        self.load()

    def log_in(self, at: int) -> None:
        answer = self.clients[at].post(
            "/generate-token",
            json={"auth_code": self.sim.issue_auth_code()},
            headers={"Authorization": f"Bearer {ADMIN}"},
        )
        assert answer.status_code == 200, answer.text

    def alert(self, at: int) -> Any:
        body = {
            "token": "hook",
            "symbol": "NIFTY",
            "strikeprice": 24500,
            "optionType": "CE",
            "expiry": "WEEKLY",
        }
        more = {"action": "BUY", "lots": 1, "idempotency_key": f"key {next(self._numbers)}"}
        return self.clients[at].post("/webhook", json=body | more)
