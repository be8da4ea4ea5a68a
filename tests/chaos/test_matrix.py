"""The fault matrix's judge can say no, and its killer kills a whole family."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.chaos.matrix import below, kill_all, lives
from tests.chaos.ways import QUICK, WAYS, Cell, Way, render
from tests.chaos.world import Sent
from tests.simulator.faults import NAMES

MEANS = {"symbol": "NSE:X", "side": 1, "qty": 65}
ACCEPTED, REFUSED = Way("reset_created", "FILLED"), Way("rms_reject", "REJECTED", refused=True)


def line(order_id: str | None = "1", **changes: Any) -> dict[str, Any]:
    return {"kind": "order", "body": MEANS | {"orderTag": "T"} | changes, "order_id": order_id}


def cell(way: Way = ACCEPTED, *, crash: bool = False, **given: Any) -> Cell:
    row = {"state": "FILLED", "broker_order_id": "1"}
    usual: dict[str, Any] = {"answers": [202, 202], "lines": [line()], "row": row, "died": crash}
    made = Cell(way, crash, Sent("a", {}, MEANS), **(usual | given))
    made.states = made.states or [made.row.get("state", "")]
    made.judge()
    return made


def test_what_is_right_is_right() -> None:
    assert cell().verdict.clean
    assert cell(crash=True).verdict.clean
    unread = {**line(), "body": {}}
    assert cell(lines=[unread]).verdict.clean
    no = {"state": "NOT_PLACED", "broker_order_id": None}
    assert cell(REFUSED, crash=True, lines=[line(None)], row=no).verdict.clean


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"lines": [line(), line()]}, "doubled"),
        ({"lines": [line(), line(None)]}, "doubled"),
        ({"lines": []}, "lost"),
        ({"row": {}}, "lost"),
        ({"lines": [line(qty=130)]}, "changed"),
        ({"states": ["SENDING", "NOT_PLACED", "ACCEPTED", "FILLED"]}, "unaccounted"),
        ({"states": ["SENDING", "REJECTED", "ACCEPTED", "FILLED"]}, "unaccounted"),
        ({"answers": [202, 422]}, "unaccounted"),
        ({"answers": [502]}, "unaccounted"),
        ({"row": {"state": "IN_DOUBT", "broker_order_id": "1"}}, "unaccounted"),
        ({"row": {"state": "FILLED", "broker_order_id": "2"}}, "unaccounted"),
        ({"crash": True, "died": False}, "unaccounted"),
    ],
)
def test_each_kind_of_wrong_is_seen(given: dict[str, Any], kind: str) -> None:
    judged = cell(**given)
    assert getattr(judged.verdict, kind) > 0


def test_the_table_shows_what_is_wrong() -> None:
    right, wrong = cell().result(), cell(crash=True, lines=[line(), line()]).result()
    (shown,) = (text.split() for text in render({1: [right, wrong]}).splitlines()[1:])
    assert shown == ["reset_created", "1", "FILLED", "2", "FILLED", "WRONG"]


def test_every_fault_of_an_order_has_its_row() -> None:
    """By what is done and how it is answered; a page is a page, whatever its number."""
    alike = {
        "custom": "http_500",
        "cloudflare_403": "html_502",
        "html_503": "html_502",
        "bad_symbol": "rms_reject",
    }

    def way_of(name: str) -> str:
        late, made = name.startswith("late_"), name.endswith("_created")
        base = name.removeprefix("late_").removesuffix("_created")
        return ("late" if late else alike.get(base, base)) + ("_created" if made and not late else "")

    there = {way_of(way.fault) for way in WAYS}
    assert {way_of(name) for name in NAMES - {"late", "empty"}} - there == set()
    assert {str(way) for way in WAYS} >= set(QUICK)


def test_a_family_is_killed_whole() -> None:
    child = (
        f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    )
    with subprocess.Popen([sys.executable, "-c", child]) as parent:
        while not (family := below(parent.pid)):
            assert parent.poll() is None
        kill_all(parent.pid)
        assert parent.wait(5) < 0
    assert not any(lives(pid) for pid in family)
