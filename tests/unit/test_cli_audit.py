"""`flask audit …`: what an operator sees of a whole audit, of a damaged one, and of its export."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from contextlib import closing

import pytest

from app.domain.status import Status
from app.jobs.run import run_job
from tests.unit.operator_desk import Operator

S = Status


@pytest.fixture
def audited(operator: Operator) -> Operator:
    """Two orders, sealed: one event and three."""
    operator.order(1)
    operator.order(2, S.IN_DOUBT, S.ACCEPTED)
    assert run_job(operator.ports, "seal").startswith("1 seals")
    return operator


def ids(operator: Operator) -> list[str]:
    """By their number of events."""
    query = "SELECT id FROM orders ORDER BY event_count"
    return [row[0] for row in damage(operator, query)]


def damage(operator: Operator, *statements: str) -> list[tuple[str]]:
    path = operator.ports.settings.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        found = [connection.execute(s).fetchall() for s in statements]
        connection.commit()
    return found[-1]


def faults(operator: Operator, *words: str) -> list[str]:
    result = operator.run("audit", "verify", *words)
    assert result.exit_code == 1, result.output
    *lines, whole, last, verdict = result.stdout.splitlines()
    assert re.match(r"\d+ orders?, \d+ events?, \d+ seals?; \d+ orders? changed since the last seal", whole)
    assert last.startswith("the last seal is ")
    assert verdict == f"NOT whole: {len(lines)} fault{'s' * (len(lines) != 1)}"
    return lines


def test_a_whole_audit(audited: Operator) -> None:
    (seal,) = audited.ports.audit.newest(1) if audited.ports.audit else ()
    said = audited.said("audit", "verify", "--seal", f"1:{seal.hash}")
    assert said.splitlines() == [
        "2 orders, 4 events, 1 seal; 0 orders changed since the last seal",
        f"the last seal is 1:{seal.hash}",
        "whole",
    ]


def test_nothing_is_whole_too(operator: Operator) -> None:
    assert operator.said("audit", "verify").splitlines()[-1] == "whole"
    assert run_job(operator.ports, "seal") == "nothing changed"


def test_each_fault_is_a_line_that_says_where(audited: Operator) -> None:
    one, three = ids(audited)
    damage(
        audited,
        f"UPDATE order_events SET status = 'FILLED' WHERE order_id = '{three}' AND sequence = 2",
        f"DELETE FROM order_events WHERE order_id = '{one}'",
        f"DELETE FROM orders WHERE id = '{one}'",
    )
    assert sorted(faults(audited)) == sorted(
        [
            f"FAULT order {three} event 2: the event was changed",
            f"FAULT seal 1 order {one} event 1: the event that the seal names is gone",
        ]
    )


def test_all_rewritten_seals_too_shows_only_beside_a_note(audited: Operator) -> None:
    (seal,) = audited.ports.audit.newest(1) if audited.ports.audit else ()
    damage(audited, "DELETE FROM audit_seals", "DELETE FROM audit_seal_heads")
    audited.order(3)
    run_job(audited.ports, "seal")
    assert audited.said("audit", "verify").splitlines()[-1] == "whole"
    assert faults(audited, "--seal", f"1:{seal.hash}") == [
        "FAULT seal 1: it has another hash than was noted elsewhere"
    ]


@pytest.mark.parametrize("word", ["1", "1:abc", "x:" + "0" * 64, "1:" + "g" * 64])
def test_a_note_that_is_none_is_refused(audited: Operator, word: str) -> None:
    assert "expected NUMBER:HASH" in audited.refused("audit", "verify", "--seal", word)


def test_export_says_the_same_in_both_formats(audited: Operator) -> None:
    rows = list(csv.DictReader(io.StringIO(audited.said("audit", "export"))))
    lines = [json.loads(line) for line in audited.said("audit", "export", "--format", "jsonl").splitlines()]
    assert [{k: "" if v is None else str(v) for k, v in line.items()} for line in lines] == rows
    assert len(rows) == 4
    first = rows[0]
    assert first["at"] == "2026-11-18T10:30:01.234000+05:30"
    assert (first["event"], first["status"], first["mode"]) == ("order:sending", "SENDING", "paper")
    assert json.loads(first["detail"]) == {"attempt": "1"}
    assert len(first["hash"]) == 64


def test_export_of_ist_days(audited: Operator) -> None:
    born = ("audit", "export", "--format", "jsonl", "--from", "2026-11-18", "--to", "2026-11-18")
    assert len(audited.said(*born).splitlines()) == 2  # the later states came by the machine's clock
    assert audited.said("audit", "export", "--format", "jsonl", "--to", "2026-11-17") == ""
    assert "--from: expected at most --to" in audited.refused(
        "audit", "export", "--from", "2026-11-19", "--to", "2026-11-18"
    )


def test_a_spreadsheet_takes_no_name_for_a_formula(operator: Operator) -> None:
    made = operator.order(1, client="=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO(operator.said("audit", "export")))
    assert (row["client"], row["order_id"]) == ("'=HYPERLINK(1)", made.id)


def test_without_a_database_it_is_one_clear_line(fresh: Operator) -> None:
    assert "migrate" in fresh.refused("audit", "verify")
