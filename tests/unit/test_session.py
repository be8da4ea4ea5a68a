"""Trading days: the built-in calendar, and an operator's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from app.domain import session
from app.domain.session import Calendar, previous_trading_day, read_calendar, use_calendar
from app.settings import SettingsError, load


@pytest.fixture(autouse=True)
def only_the_built_in_calendar() -> Iterator[None]:
    use_calendar(Calendar())
    yield
    use_calendar(Calendar())


def test_weekends_and_holidays_are_passed_over() -> None:
    assert previous_trading_day(date(2026, 11, 23)) == date(2026, 11, 20)
    assert previous_trading_day(date(2026, 11, 25)) == date(2026, 11, 23)  # the 24th is a holiday
    assert session.trading_day_from(date(2026, 11, 21)) == date(2026, 11, 23)
    assert session.has_holidays_of(2026)
    assert not session.has_holidays_of(2031)


def test_a_sunday_that_trades_is_the_day_before_its_monday() -> None:
    assert previous_trading_day(date(2026, 2, 2)) == date(2026, 2, 1)


def test_own_days_are_added_and_outrank_the_built_in_ones() -> None:
    use_calendar(read_calendar("2026-11-23  # a strike\n\n2026-11-24 trading\n"))
    assert previous_trading_day(date(2026, 11, 25)) == date(2026, 11, 24)
    assert previous_trading_day(date(2026, 11, 24)) == date(2026, 11, 20)
    assert not session.is_trading_day(date(2026, 12, 25))


@pytest.mark.parametrize("text", ["25-12-2026", "2026-12-25 open", "2026-12-25\n2026-12-25 trading"])
def test_a_calendar_that_is_none_is_refused_by_its_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|holiday and as a trading day"):
        read_calendar(text)


def test_holidays_file_is_read_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.txt"
    own.write_text("2026-12-24\n")
    assert load(holidays_file=own).own_calendar.closed == {date(2026, 12, 24)}
    own.write_text("24 December\n")
    with pytest.raises(SettingsError, match=r"HOLIDAYS_FILE.*line 1"):
        load(holidays_file=own)
    with pytest.raises(SettingsError, match=r"HOLIDAYS_FILE.*readable"):
        load(holidays_file=tmp_path / "none.txt")
