"""An operator at the command line of a service in paper mode, over the real store on SQLite."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from click.testing import Result
from flask import Flask

from app import cli
from app.domain.audit import Event
from app.domain.order import Order, Side
from app.domain.risk import TradingState
from app.domain.status import Status
from app.factory import create_app
from app.service.records import AuditEvent, Moved, Stranger
from app.settings import load
from app.store.migrate import upgrade
from app.web.ports import Ports
from tests.builders import an_order

S = Status
BORN = datetime(2026, 11, 18, 5, 0, 1, 234000, tzinfo=UTC)
ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


@dataclass
class Operator:
    app: Flask

    @property
    def ports(self) -> Ports:
        ports: Ports = self.app.extensions["ports"]
        return ports

    def run(self, *words: str) -> Result:
        result: Result = self.app.test_cli_runner().invoke(args=list(words))
        return result

    def said(self, *words: str) -> str:
        """What a good call prints."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *words: str) -> str:
        """What a wrong call prints: one line, and exit code 1."""
        result = self.run(*words)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        return line

    def order(self, number: int, *path: Status, **changes: object) -> Order:
        """A row that went from SENDING through these states."""
        at = BORN + timedelta(minutes=number)
        born = replace(
            an_order(number, **{"answer_by": at, **changes}),  # type: ignore[arg-type]
            scope=self.ports.scope,
            created_at=at,
            updated_at=at,
        )
        with self.ports.store.write() as tx:
            tx.insert_order(born, AuditEvent(Event.ORDER_SENDING, BORN, born.status, {"attempt": "1"}))
            order = born
            for after in path:
                event = AuditEvent(Event.ORDER_IN_DOUBT, tx.now(), after, {"reason": f"became {after}"})
                moved = tx.move(order, after, event, Moved(reason=f"became {after}"))
                assert moved is not None
                order = moved
        return order

    def row(self, order: Order) -> Order:
        with self.ports.store.read() as tx:
            found = tx.get_order(self.ports.scope, order.id)
        assert found is not None
        return found

    def stranger(self, ident: str) -> None:
        with self.ports.store.write() as tx:
            tx.add_stranger(
                self.ports.scope,
                Stranger(ident, "NSE:NIFTY26NOV24500CE", Side.BUY, 65, "INTRADAY", None, BORN, BORN),
            )

    def state(self) -> TradingState:
        with self.ports.store.read() as tx:
            return tx.trading_state(self.ports.scope)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """A service that nobody has migrated."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "TRADING_MODE", "FYERS_APP_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "instance").mkdir()
    app = create_app(load(instance_dir=tmp_path / "instance"))
    cli.register(app)
    yield Operator(app)
    app.extensions["ports"].store.close()
    structlog.reset_defaults()


@pytest.fixture
def operator(fresh: Operator) -> Operator:
    upgrade(fresh.ports.settings.url)
    fresh.ports.desk()
    return fresh
