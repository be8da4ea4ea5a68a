"""A small symbol master made for a date, by the naming rule of the real files; the default when none is
given.

NIFTY (Tuesdays, lot 65), BANKNIFTY (monthly, lot 30) and RELIANCE (monthly, lot 500) on NSE; SENSEX
(Thursdays, lot 20) on BSE. `lastUpdate` is the previous weekday, as a file fetched on a trading morning
carries (D). Holidays are not known here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from tests.simulator.clock import IST

_TUESDAY, _THURSDAY = 1, 3


def sample_masters(on: date) -> dict[str, bytes]:
    """NSE_FO.csv, BSE_FO.csv, NSE_CM.csv and BSE_CM.csv as they would look on that morning."""
    nifty = _expiries(on, _TUESDAY, weeks=4)
    nse = [
        *_options(on, "NSE", "NIFTY", 14, 65, nifty, _TUESDAY, range(24000, 25001, 50), "26000"),
        *_options(
            on, "NSE", "BANKNIFTY", 14, 30, _monthly(nifty), _TUESDAY, range(52000, 53001, 100), "26009"
        ),
        *_options(on, "NSE", "RELIANCE", 15, 500, _monthly(nifty), _TUESDAY, range(1300, 1401, 20), "2885"),
    ]
    bse = _options(
        on,
        "BSE",
        "SENSEX",
        14,
        20,
        _expiries(on, _THURSDAY, weeks=4),
        _THURSDAY,
        range(80000, 81001, 100),
        "1",
    )
    cash = [
        ("NIFTY50-INDEX", "NIFTY", 10, 0, "26000"),
        ("SBIN-EQ", "SBIN", 0, 1, "3045"),
        ("RELIANCE-EQ", "RELIANCE", 0, 1, "2885"),
    ]
    return {
        "NSE_FO.csv": _file(nse),
        "BSE_FO.csv": _file(bse),
        "NSE_CM.csv": _file([_cash(on, "NSE", *row) for row in cash]),
        "BSE_CM.csv": _file([_cash(on, "BSE", "SENSEX-INDEX", "SENSEX", 10, 0, "1")]),
    }


def nifty_ticker(on: date, strike: int = 24500, kind: str = "CE", week: int = 0) -> str:
    """The ticker of a NIFTY option of the sample master, `week` expiries after the nearest."""
    return _ticker("NSE", "NIFTY", _expiries(on, _TUESDAY, weeks=4)[week], _TUESDAY, strike, kind)


def _file(rows: list[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def _expiries(on: date, weekday: int, weeks: int) -> list[date]:
    first = on + timedelta(days=(weekday - on.weekday()) % 7)
    weekly = [first + timedelta(weeks=n) for n in range(weeks)]
    later = [day for n in range(weeks, 14) if _is_last(day := first + timedelta(weeks=n))]
    return weekly + later[:2]


def _is_last(day: date) -> bool:
    return (day + timedelta(weeks=1)).month != day.month


def _monthly(days: list[date]) -> list[date]:
    return [day for day in days if _is_last(day)]


def _ticker(exchange: str, underlying: str, expiry: date, weekday: int, strike: int, kind: str) -> str:
    assert expiry.weekday() == weekday
    if _is_last(expiry):
        stamp = expiry.strftime("%y%b").upper()
    else:
        stamp = f"{expiry:%y}{'123456789OND'[expiry.month - 1]}{expiry:%d}"
    return f"{exchange}:{underlying}{stamp}{strike}{kind}"


def _session_end(expiry: date) -> int:
    closes = time(15, 40) if expiry >= date(2026, 8, 3) else time(15, 30)
    return int(datetime.combine(expiry, closes, tzinfo=IST).astimezone(UTC).timestamp())


def _last_update(on: date) -> date:
    day = on - timedelta(days=1)
    while day.weekday() > 4:
        day -= timedelta(days=1)
    return day


def _options(
    on: date,
    exchange: str,
    underlying: str,
    kind: int,
    lot: int,
    expiries: list[date],
    weekday: int,
    strikes: range,
    under_token: str,
) -> list[str]:
    code = {"NSE": "10", "BSE": "12"}[exchange]
    rows = []
    token = 35000 if exchange == "NSE" else 1101000
    token += {"BANKNIFTY": 4000, "RELIANCE": 8000}.get(underlying, 0)
    for expiry in expiries:
        hours = "0915-1540|1815-1915:" if expiry >= date(2026, 8, 3) else "0915-1530|1815-1915:"
        for strike in strikes:
            for option in ("CE", "PE"):
                token += 1
                details = f"{underlying} {expiry:%d %b %y} {strike} {option}"
                ticker = _ticker(exchange, underlying, expiry, weekday, strike, option)
                rows.append(
                    f"{code}11{expiry:%y%m%d}{token},{details},{kind},{lot},0.05,,{hours},{_last_update(on)},"
                    f"{_session_end(expiry)},{ticker},{code},11,{token},{underlying},{under_token},{strike}.0,{option},"
                    f"{code}10000000{under_token},None,0,0.0"
                )
    return rows


def _cash(on: date, exchange: str, name: str, underlying: str, kind: int, lot: int, token: str) -> str:
    code = {"NSE": "10", "BSE": "12"}[exchange]
    fy_token = f"{code}10000000{token}"
    return (
        f"{fy_token},{name},{kind},{lot},0.05,,0915-1530|1815-1915:,{_last_update(on)},,{exchange}:{name},{code},10,{token},"
        f"{underlying},{token},-1.0,XX,{fy_token},None,0,0.0"
    )
