"""Symbol-master rows for tests and measurements, true to Fyers' 21 columns, naming and fyToken rule
(fyers-api.md section 4).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from app.domain.alert import IST
from app.domain.session import is_trading_day, previous_trading_day

CODES = {"NSE": 10, "BSE": 12}
CLOSE = time(15, 40)


def session_end(expiry: date) -> datetime:
    return datetime.combine(expiry, CLOSE, IST).astimezone(UTC)


def option_row(
    underlying: str,
    expiry: date,
    strike: str,
    kind: str,
    *,
    exchange: str = "NSE",
    monthly: bool = False,
    stock: bool = False,
    token: int = 35426,
    scrip: int = 26000,
    lot: int = 65,
    dated: date = date(2026, 11, 20),
) -> list[str]:
    """One option's row; change single columns of it to make it wrong."""
    code = CODES[exchange]
    day = expiry.strftime("%b").upper() if monthly else f"{'123456789OND'[expiry.month - 1]}{expiry:%d}"
    return [
        f"{code}11{expiry:%y%m%d}{token}",
        f"{underlying} {expiry:%d %b %y} {strike} {kind}",
        "15" if stock else "14",
        str(lot),
        "0.05",
        "",
        "0915-1540|1815-1915:",
        dated.isoformat(),
        str(int(session_end(expiry).timestamp())),
        f"{exchange}:{underlying}{expiry:%y}{day}{strike}{kind}",
        str(code),
        "11",
        str(token),
        underlying,
        str(scrip),
        strike if "." in strike else f"{strike}.0",
        kind,
        f"{code}10000000{scrip}",
        "None",
        "0",
        "0.0",
    ]


def future_row(underlying: str, expiry: date, token: int, scrip: int, dated: date) -> list[str]:
    row = option_row(underlying, expiry, "1", "CE", token=token, scrip=scrip, dated=dated)
    row[2], row[15], row[16] = "13", "-1.0", "XX"
    row[9] = f"NSE:{underlying}{expiry:%y%b}FUT".upper()
    return row


def cash_row(
    ticker: str, underlying: str, scrip: int, *, exchange: str = "NSE", dated: str = "2026-11-20"
) -> list[str]:
    """An index or a share. `dated` may be `None`, as in some real rows; the expiry is a single blank."""
    code = CODES[exchange]
    token = f"{code}10000000{scrip}"
    place = [ticker, str(code), "10", str(scrip), underlying, str(scrip)]
    head = [token, underlying, "10", "0", "0.05", "", "0915-1530|1815-1915:", dated, " "]
    return [*head, *place, "-1.0", "XX", token, "None", "0", "0.0"]


def as_csv(rows: Iterable[list[str]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


def expiries(today: date, *, weekly: bool) -> list[tuple[date, bool]]:
    """Tuesdays, moved back over holidays: six weeks for a weekly underlying, and three months' last ones."""
    day = today + timedelta(days=(1 - today.weekday()) % 7)
    days = []
    for tuesday in (day + timedelta(days=7 * week) for week in range(20)):
        moved = tuesday if is_trading_day(tuesday) else previous_trading_day(tuesday)
        days.append(max(moved, today))
    last = {(d.year, d.month): d for d in days}
    monthly = [d for d in days if last[d.year, d.month] == d][:3]
    chosen = {*monthly, *(days[:6] if weekly else ())}
    return [(d, last[d.year, d.month] == d) for d in sorted(chosen)]


def nse_fo(count: int, today: date) -> bytes:
    """An NSE_FO.csv of `count` rows as fetched in the morning of `today`: two indices, then stocks."""
    return as_csv(itertools.islice(_nse_fo_rows(today), count))


def _nse_fo_rows(today: date) -> Iterator[list[str]]:
    tokens = itertools.count(35_000)
    dated = previous_trading_day(today)
    indices = [("NIFTY", 26000, 24500, 50, 65), ("BANKNIFTY", 26009, 55000, 100, 30)]
    stocks = ((f"STOCK{n:03d}", 1000 + n, 1000 + 20 * n, 5 + n % 3 * 5, 250 + n) for n in itertools.count())
    for name, scrip, spot, step, lot in itertools.chain(indices, stocks):
        stock = name.startswith("STOCK")
        reach = 40 if stock else 100
        for expiry, monthly in expiries(today, weekly=name == "NIFTY"):
            if monthly:
                yield future_row(name, expiry, next(tokens), scrip, dated)
            for place, kind in itertools.product(range(-reach, reach + 1), ("CE", "PE")):
                yield option_row(
                    name,
                    expiry,
                    str(spot + place * step),
                    kind,
                    monthly=monthly,
                    stock=stock,
                    token=next(tokens),
                    scrip=scrip,
                    lot=lot,
                    dated=dated,
                )
