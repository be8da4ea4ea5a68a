"""What the benchmark and the limits say at the end is what came out: a missed target is neither passed nor a failure."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.rows import MISSED, Row, show
from tests.limits import __main__ as limits

MET, LATE = Row("p50", "1.2 x", "at most 1.6 x"), Row("throughput", "0.5 x", "at least 0.6 x", met=False)


@pytest.mark.parametrize(("rows", "ended"), [([MET], 0), ([LATE, MET], MISSED)])
def test_a_part_ends_as_its_rows_say(
    rows: list[Row], ended: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert show(rows) == ended
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [f"{row.verdict})" for row in rows]


@pytest.mark.parametrize(("ended", "more"), [(0, []), (MISSED, []), (1, ["ended with 1"])])
def test_the_whole_takes_a_missed_target_for_no_broken_part(
    ended: int, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    part.write_text(f"#!/bin/sh\necho '{json.dumps(asdict(LATE))}'\nexit {ended}\n")
    part.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(part))
    assert [row.measured for row in bench.rows_of("alerts")] == [LATE.measured, *more]
    assert bench.main(("alerts",)) == MISSED


@pytest.mark.parametrize(
    ("code", "word", "ended"),
    [
        ("sys.exit(show([Row('p50', '1.2 x', 'at most 1.6 x')]))", "passed", 0),
        ("sys.exit(show([Row('p50', '1.9 x', 'at most 1.6 x', met=False)]))", "missed", 1),
        ("raise SystemExit('p50: it broke')", "FAILED", 1),
    ],
)
def test_a_line_of_the_limits_says_what_came_of_it(
    code: str,
    word: str,
    ended: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a_part.py").write_text(f"import sys\nfrom bench.rows import Row, show\n{code}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(limits, "LINES", (limits.Line("numbers", "all", module="a_part"),))
    assert limits.main([]) == ended
    said = capsys.readouterr().out
    assert "p50: " in said
    assert said.splitlines()[-1].split()[:3] == ["numbers", "all", word]
