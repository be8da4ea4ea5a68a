"""The rotating file that several processes write, and the record that several destinations share."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from app.telemetry import logging as own


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "f", 1, text, None, None)


def test_two_processes_of_one_file_lose_no_line_at_its_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two handlers on one path are what two processes have."""
    monkeypatch.setattr(own, "FILE_BYTES", 2_000)
    monkeypatch.setattr(own, "FILES", 50)
    path = tmp_path / "ä.log"
    handlers = [own.SharedFile(path) for _ in range(2)]
    for handler in handlers:
        handler.setFormatter(own.JsonLine())
    for number in range(200):
        handlers[number % 2].emit(record(f"ß{number}"))
    for handler in handlers:
        handler.close()
    files = [p for p in tmp_path.iterdir() if p.suffix != ".lock"]
    kept = [
        line["event"]
        for p in files
        for line in (json.loads(text) for text in p.read_text(encoding="utf-8").splitlines())
    ]
    assert len(files) > 5
    assert sorted(kept) == sorted(f"ß{n}" for n in range(200))
    assert all(p.stat().st_size <= 2_000 for p in files)


def test_a_rotation_that_cannot_open_the_new_file_throws_no_older_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "FILE_BYTES", 2_000)
    handler = own.SharedFile(tmp_path / "a.log")
    handler.setFormatter(own.JsonLine())
    number = 0
    while not (tmp_path / "a.log.2").exists():
        handler.emit(record(f"line {number}"))
        number += 1
    while handler._path.stat().st_size < 1_900:
        handler.emit(record(f"line {number}"))
        number += 1

    def none_left() -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(handler, "_open", none_left)
        for _ in range(10):
            handler.emit(record("is lost"))
    handler.emit(record("the last"))
    handler.close()
    files = [p for p in tmp_path.iterdir() if p.suffix != ".lock"]
    kept = [json.loads(text)["event"] for p in files for text in p.read_text(encoding="utf-8").splitlines()]
    assert [f"line {n}" for n in range(number)] == sorted(
        (k for k in kept if k.startswith("line")), key=lambda k: int(k.split()[1])
    )
    assert kept.count("the last") == 1


def test_a_field_of_somebody_elses_record_is_not_taken_for_a_finished_line() -> None:
    foreign = record("token=abcd1234")
    foreign.rendered = "token=abcd1234"
    assert "abcd1234" not in own.JsonLine().format(foreign)
