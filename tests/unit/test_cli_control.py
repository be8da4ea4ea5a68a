"""`flask halt`, `reduce`, `resume`, `state`, `strangers`, `jobs` and `reconcile`, and what can be wrong around them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app import cli
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed
from app.factory import create_app
from app.jobs.run import JOBS
from app.settings import load
from tests.unit.operator_desk import ME, Operator

S = Status


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
    assert all("  never  " in line for line in lines[1:])
    assert operator.said("jobs", "run", "purge") == "purge: 0 expired keys and 0 old notices deleted\n"
    (line,) = (row for row in operator.said("jobs", "list").splitlines() if row.startswith("purge "))
    assert "0 expired keys and 0 old notices deleted" in line
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


def test_a_prefix_of_another_database_is_one_line(operator: Operator, tmp_path: Path) -> None:
    app = create_app(load(instance_dir=tmp_path / "instance", order_tag_prefix="ZZZZ"))
    cli.register(app)
    for words in (("halt", "--reason", "because"), ("reconcile",), ("jobs", "run", "reconcile")):
        assert "ORDER_TAG_PREFIX" in Operator(app).refused(*words)
    app.extensions["ports"].store.close()


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "INSTANCE_DIR": str(tmp_path), "PORT": "no number"}
    command = [sys.executable, "-m", "flask", "--app", "app.wsgi", "orders", "list"]
    root = Path(cli.__file__).parents[2]
    ended = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: settings: PORT")
