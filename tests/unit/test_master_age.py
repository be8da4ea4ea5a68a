"""When the files of options are too old: each of them, not the newest."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from app.service.master_age import stale_files
from app.service.records import MasterAge

NOON = datetime(2026, 11, 18, 6, 30, tzinfo=UTC)
YESTERDAY, LAST_WEEK = date(2026, 11, 17), date(2026, 11, 10)
BOTH = ("NSE_FO.csv", "BSE_FO.csv")


@pytest.mark.parametrize(
    ("dates", "expected", "stale"),
    [
        ({"NSE_FO.csv": YESTERDAY, "BSE_FO.csv": YESTERDAY}, BOTH, []),
        ({"NSE_FO.csv": LAST_WEEK, "BSE_FO.csv": YESTERDAY}, BOTH, ["NSE_FO.csv"]),
        ({"NSE_FO.csv": LAST_WEEK, "BSE_FO.csv": YESTERDAY}, (), ["NSE_FO.csv"]),
        ({"NSE_FO.csv": YESTERDAY}, BOTH, ["BSE_FO.csv"]),
        ({"NSE_FO.csv": YESTERDAY}, (), []),
        ({"NSE_FO.csv": YESTERDAY, "NSE_CM.csv": LAST_WEEK}, (), []),
        ({"NSE_FO.csv": YESTERDAY, "NSE_FO_sym_master.json": LAST_WEEK}, (), []),
        ({}, (), ["options"]),
    ],
)
def test_each_file_counts(dates: dict[str, date], expected: tuple[str, ...], stale: list[str]) -> None:
    assert stale_files(MasterAge(NOON, dates, 1, 0), NOON, expected) == stale
