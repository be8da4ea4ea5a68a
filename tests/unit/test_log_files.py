"""The rotating file that several processes write, and the record that several destinations share."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from app.telemetry import logging as own


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "f", 1, text, None, None)


def handler_on(path: Path) -> own.SharedFile:
    handler = own.SharedFile(path)
    handler.setFormatter(own.JsonLine())
    return handler


def kept_in(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_processes_of_one_file_lose_no_line_at_its_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two handlers on one path are what two processes have."""
    monkeypatch.setattr(own, "FILE_BYTES", 2_000)
    monkeypatch.setattr(own, "FILES", 50)
    path = tmp_path / "ä.log"
    handlers = [handler_on(path) for _ in range(2)]
    for number in range(200):
        handlers[number % 2].emit(record(f"ß{number}"))
    for handler in handlers:
        handler.close()
    files = [p for p in tmp_path.iterdir() if p.suffix != ".lock"]
    kept = [event for p in files for event in kept_in(p)]
    assert len(files) > 5
    assert sorted(kept) == sorted(f"ß{n}" for n in range(200))
    assert all(p.stat().st_size <= 2_000 for p in files)


def test_a_rotation_that_cannot_open_the_new_file_throws_no_older_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "FILE_BYTES", 2_000)
    handler = handler_on(tmp_path / "a.log")
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
    kept = [event for p in files for event in kept_in(p)]
    assert [f"line {n}" for n in range(number)] == sorted(
        (k for k in kept if k.startswith("line")), key=lambda k: int(k.split()[1])
    )
    assert kept.count("the last") == 1


def test_a_line_that_the_disk_takes_half_of_leaves_nothing_that_the_next_goes_on_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handler_on(tmp_path / "a.log")
    handler.emit(record("first"))
    write = os.write

    def full(file: int, line: bytes) -> int:
        return write(file, line[:40])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        handler.emit(record("does not fit"))
    handler.emit(record("second"))
    handler.close()
    assert kept_in(tmp_path / "a.log") == ["first", "second"]
    assert "a log line was lost" in capsys.readouterr().err


def test_a_file_that_cannot_be_renamed_grows_on_and_one_try_is_all_that_the_older_ones_pay_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is mounted by itself."""
    monkeypatch.setattr(own, "FILE_BYTES", 2_000)
    handler = handler_on(tmp_path / "a.log")
    for number in range(1, own.FILES + 1):
        (tmp_path / f"a.log.{number}").write_text("older")

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(handler, "rotate", busy)
    for number in range(60):
        handler.emit(record(f"line {number}"))
    handler.close()
    assert kept_in(tmp_path / "a.log") == [f"line {n}" for n in range(60)]
    assert [p.read_text() for p in tmp_path.glob("a.log.?")] == ["older"] * (own.FILES - 1)


def test_a_relative_path_stays_the_same_file_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = handler_on(Path("a.log"))
    handler.emit(record("first"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    handler.emit(record("second"))
    handler.close()
    assert kept_in(tmp_path / "a.log") == ["first", "second"]


def test_half_a_pair_of_surrogates_costs_no_line(tmp_path: Path) -> None:
    handler = handler_on(tmp_path / "a.log")
    handler.emit(record("half \udc80"))
    handler.close()
    assert kept_in(tmp_path / "a.log") == ["half \udc80"]


def test_a_field_of_somebody_elses_record_is_not_taken_for_a_finished_line() -> None:
    foreign = record("token=abcd1234")
    foreign.rendered = "token=abcd1234"
    assert "abcd1234" not in own.JsonLine().format(foreign)
