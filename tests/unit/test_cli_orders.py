"""The operator's commands over the real store: what they print, what they change, and one line for what goes wrong."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
from app.errors import BrokerReadFailed
from app.factory import create_app
from app.jobs import JOBS
from app.service.records import AuditEvent, Moved, Stranger
from app.settings import load
from app.store.migrate import upgrade
from app.web.ports import Ports
from tests.builders import TODAY, an_order

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


def test_a_list_with_the_newest_first(operator: Operator) -> None:
    assert operator.said("orders", "list") == "no order in paper mode\n"
    first = operator.order(1, S.ACCEPTED, S.FILLED)
    second = operator.order(2, S.IN_DOUBT)
    head, *lines = operator.said("orders", "list").splitlines()
    assert head.split() == ["TIME", "(IST)", "ORDER", "STATE", "WHAT", "FILLED", "WHY"]
    assert [line.split()[2] for line in lines] == [second.id, first.id]
    assert lines[0].startswith("2026-11-18 10:32:01  ")
    assert "IN_DOUBT  entry BUY NSE:NIFTY26112424500CE INTRADAY  0/65    became IN_DOUBT" in lines[0]


def test_a_list_of_some(operator: Operator) -> None:
    first = operator.order(1, S.ACCEPTED)
    second = operator.order(2, S.REJECTED, ist_date=TODAY - timedelta(days=1))
    third = operator.order(3, S.ACCEPTED)

    def ids(*words: str) -> list[str]:
        lines = operator.said("orders", "list", *words).splitlines()
        return [line.split()[2] for line in lines if line.startswith("2026")]

    assert ids("--status", "accepted") == [third.id, first.id]
    assert ids("--date", "2026-11-17") == [second.id]
    assert ids("--date", "2026-11-18", "--limit", "1") == [third.id]
    assert "older ones" in operator.said("orders", "list", "--limit", "1")
    assert "older ones" not in operator.said("orders", "list", "--limit", "3")
    assert operator.said("orders", "list", "--date", "2020-01-01") == "no order in paper mode on 2020-01-01\n"


def test_a_list_of_what_is_in_doubt(operator: Operator) -> None:
    assert operator.said("orders", "list", "--in-doubt") == "no order in paper mode is in doubt\n"
    operator.order(1, S.ACCEPTED)
    doubt = operator.order(2, S.IN_DOUBT)
    review = operator.order(3, S.IN_DOUBT, S.NEEDS_REVIEW)
    said = operator.said("orders", "list", "--in-doubt")
    assert [line.split()[2] for line in said.splitlines() if line.startswith("2026")] == [review.id, doubt.id]
    only = operator.said("orders", "list", "--in-doubt", "--status", "IN_DOUBT")
    assert review.id not in only
    assert doubt.id in only


def test_one_order_with_its_timeline_in_ist(operator: Operator) -> None:
    order = operator.order(1, S.IN_DOUBT, S.NEEDS_REVIEW)
    said = operator.said("orders", "show", order.id.lower())
    head, _, timeline = said.partition("\n\n")
    assert f"order        {order.id}" in head
    assert "filled       0 of 65" in head
    lines = timeline.splitlines()
    assert [line.split()[3] for line in lines[1:4]] == ["SENDING", "IN_DOUBT", "NEEDS_REVIEW"]
    assert lines[1].startswith("2026-11-18 10:30:01.234  order:sending")
    assert "reason: became IN_DOUBT" in lines[2]
    assert f"orders resolve {order.id} --as STATE" in lines[-1]
    settled = operator.order(2, S.ACCEPTED)
    assert "resolve" not in operator.said("orders", "show", settled.id)


def test_a_verdict_is_on_record_with_who_and_why(operator: Operator) -> None:
    order = operator.order(1, S.IN_DOUBT, S.NEEDS_REVIEW)
    reason = "seen in the broker's app"
    said = operator.said(
        "orders",
        "resolve",
        order.id,
        "--as",
        "cancelled",
        "--reason",
        reason,
        "--filled",
        "5",
        "--price",
        "101.5",
    )
    assert said == f"{order.id}: NEEDS_REVIEW -> CANCELLED, 5 of 65 filled ({ME}: {reason})\n"
    row = operator.row(order)
    assert (row.status, row.filled_quantity, row.fill_price) == (S.CANCELLED, 5, Decimal("101.5"))
    last = operator.ports.store.events(row.scope, row.id)[-1]
    assert last.event is Event.ORDER_RESOLVED
    assert (last.detail["by"], last.detail["reason"]) == (ME, reason)
    assert f"by: {ME}; reason: {reason}" in operator.said("orders", "show", order.id)


WRONG = [
    (("orders", "show", "NOSUCH"), "there is no order NOSUCH"),
    (("orders", "resolve", "NOSUCH", "--as", "FILLED", "--reason", "because"), "there is no order NOSUCH"),
    (("orders", "resolve", "NOSUCH", "--as", "FOO", "--reason", "because"), "expected one of DENIED, "),
    (("orders", "resolve", "NOSUCH", "--as", "FILLED"), "--reason"),
    (
        ("orders", "resolve", "{doubt}", "--as", "FILLED", "--reason", "because"),
        "can become ACCEPTED, NEEDS_REVIEW",
    ),
    (("orders", "resolve", "{accepted}", "--as", "FILLED", "--reason", "because"), "not settled by hand"),
    (("orders", "resolve", "{doubt}", "--as", "REJECTED", "--reason", "x"), "expected 3 to 500 characters"),
    (
        ("orders", "resolve", "{doubt}", "--as", "ACCEPTED", "--reason", "why", "--price", "nan"),
        "positive number",
    ),
    (
        ("orders", "resolve", "{doubt}", "--as", "ACCEPTED", "--reason", "why", "--filled", "66"),
        "expected 0 to 65",
    ),
    (("orders", "list", "--status", "foo"), "expected one of DENIED, "),
    (("orders", "list", "--date", "2026-13-01"), "--date"),
    (("orders", "list", "--limit", "0"), "--limit"),
    (("orders", "list", "--nosuch"), "--nosuch"),
    (("orders", "lost"), "lost"),
    (("halt",), "--reason"),
    (("halt", "--reason", " "), "characters that say why"),
    (("jobs", "run", "nosuch"), "there is no job 'nosuch': "),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_what_goes_wrong_is_one_line_and_changes_nothing(
    operator: Operator, words: tuple[str, ...], line: str
) -> None:
    doubt, accepted = operator.order(1, S.IN_DOUBT), operator.order(2, S.ACCEPTED)
    said = operator.refused(*(w.format(doubt=doubt.id, accepted=accepted.id) for w in words))
    assert line in said
    assert (operator.row(doubt), operator.row(accepted)) == (doubt, accepted)
    assert operator.state() is TradingState.ACTIVE


@pytest.mark.parametrize(
    "words",
    [
        ("orders", "list"),
        ("orders", "list", "--in-doubt"),
        ("orders", "show", "X"),
        ("orders", "resolve", "X", "--as", "FILLED", "--reason", "because"),
        ("state", "show"),
        ("halt", "--reason", "because"),
        ("strangers",),
        ("reconcile",),
        ("jobs", "run", "purge"),
    ],
    ids=" ".join,
)
def test_a_database_that_is_not_there_yet(fresh: Operator, words: tuple[str, ...]) -> None:
    assert "flask --app app.wsgi migrate" in fresh.refused(*words)


def test_halt_reduce_and_resume(operator: Operator) -> None:
    assert operator.said("halt", "--reason", "going away").startswith("HALTED from now on: ")
    assert operator.state() is TradingState.HALTED
    again = operator.said("halt", "--reason", "me too")
    assert again.startswith("it was HALTED already, since ")
    assert again.endswith(f"by {ME}\n")
    operator.said("reduce", "--reason", "half way")
    assert operator.state() is TradingState.REDUCING
    assert operator.said("resume", "--reason", "back again").startswith("ACTIVE from now on: ")
    assert operator.state() is TradingState.ACTIVE
    head, since, _, _, *history = operator.said("state", "show").splitlines()
    assert head.startswith("ACTIVE (paper mode): ")
    assert since.endswith(f"by {ME}: back again")
    assert [line.split()[2] for line in history] == ["ACTIVE", "REDUCING", "HALTED", "ACTIVE"]


def test_the_answer_alone_is_on_stdout(operator: Operator) -> None:
    result = operator.run("halt", "--reason", "going away")
    assert result.stdout.count("\n") == 1
    assert '"event": "trading_state"' in result.stderr


def test_resume_prints_the_strangers_that_it_acknowledges(operator: Operator) -> None:
    assert operator.said("strangers") == "no strangers wait for a look\n"
    operator.stranger("26111800000001")
    operator.stranger("26111800000002")
    waiting = operator.said("strangers")
    assert "26111800000001  BUY 65 NSE:NIFTY26NOV24500CE INTRADAY" in waiting
    assert "flask --app app.wsgi resume" in waiting
    assert "2 strangers" in operator.said("state", "show")
    assert "stranger" not in operator.said("reduce", "--reason", "half way")
    said = operator.said("resume", "--reason", "looked at both")
    assert "acknowledged 2 strangers:" in said
    assert "26111800000001" in said
    assert "26111800000002" in said
    assert operator.said("strangers") == "no strangers wait for a look\n"
    assert operator.said("strangers", "--all").count(ME) == 2


def test_jobs(operator: Operator) -> None:
    lines = operator.said("jobs", "list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(JOBS)
    assert operator.said("jobs", "run", "purge") == "purge: 0 expired keys deleted\n"
    assert operator.said("jobs", "run", "reconcile").startswith("reconcile: 0 orders changed")
    assert operator.said("reconcile").startswith("0 orders changed")


def test_a_broker_that_cannot_be_read_is_one_line(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(_: object) -> None:
        raise BrokerReadFailed("order_book: time-out")

    ports = replace(operator.ports, reconcile=failed)  # type: ignore[arg-type]
    monkeypatch.setitem(operator.app.extensions, "ports", ports)
    assert operator.refused("reconcile") == "Error: order_book: time-out"
