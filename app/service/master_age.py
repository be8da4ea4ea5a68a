"""Which files of options are too old to trade by: one rule for readiness, alarm, preflight and the daily refresh."""

from __future__ import annotations

from datetime import datetime

from app.domain.contract import ist_date
from app.domain.session import previous_trading_day
from app.service.records import MasterAge


def stale_files(age: MasterAge, now: datetime, expected: tuple[str, ...]) -> list[str]:
    """The options files whose contracts are not of the previous trading day: no entry in them passes. A cash file may be
    older without harm to a lot or an expiry. `expected`: the files that there should be; empty: those of the index.
    """
    wanted = previous_trading_day(ist_date(now))
    names = expected or tuple(sorted(n for n in age.dates if n.endswith("_FO.csv"))) or ("options",)
    return [n for n in names if (day := age.dates.get(n)) is None or day < wanted]
