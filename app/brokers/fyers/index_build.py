"""The child process that turns symbol-master files into the contract index, a SQLite file.

    python -m app.brokers.fyers.index_build --out FILE --source NSE_FO.csv=PATH ... --expected NSE_FO.csv ...

A process of its own, because a parse holds the interpreter lock: inside a serving process it starved a request
for the whole 0.42 s of it. The last line of its output is a JSON report; any failure is a non-zero end, and
FILE is only meant to be used after a zero one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.brokers.fyers import master_rows, master_twin
from app.brokers.fyers.master_rows import Bad, Kind, OptionRow
from app.brokers.fyers.master_twin import TwinKey, TwinRow

SCHEMA_VERSION = 4
MAX_SKIPPED_SHARE = 0.05
"""More bad rows than this is not a master with bad rows but another file or format."""
NICENESS = 10
"""Requests come first where cores are few."""
MEMORY_BYTES = 1 << 30
"""Address space. 98,000 rows and their twin take a fifth of it; a file that needs more is none of Fyers'."""

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE underlyings (exchange TEXT, underlying TEXT, ticker TEXT,
  PRIMARY KEY (exchange, underlying)) WITHOUT ROWID;
CREATE TABLE expiries (exchange TEXT, underlying TEXT, expiry TEXT, session_end INTEGER NOT NULL,
  PRIMARY KEY (exchange, underlying, expiry)) WITHOUT ROWID;
CREATE TABLE options (exchange TEXT, underlying TEXT, expiry TEXT, strike INTEGER, option_type TEXT,
  ticker TEXT NOT NULL, session_end INTEGER NOT NULL, lot INTEGER NOT NULL, tick TEXT NOT NULL, freeze INTEGER,
  is_stock INTEGER NOT NULL, dated TEXT NOT NULL, circuit_low TEXT, circuit_high TEXT, tradable INTEGER,
  PRIMARY KEY (exchange, underlying, expiry, strike, option_type)) WITHOUT ROWID;
"""
TICKER_INDEX = "CREATE INDEX options_by_ticker ON options (ticker)"

Key = tuple[str, str, str, int, str]


class Master:
    """What the source files say together, before it is written."""

    def __init__(self, expected: Sequence[str] = ()) -> None:
        self.expected = expected
        self.options: dict[Key, OptionRow] = {}
        self.clashes: set[Key] = set()
        self.quoted: dict[str, str] = {}
        self.twins: dict[TwinKey, TwinRow] = {}
        self.dates: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()
        self.seen = 0

    def read(self, name: str, path: Path) -> None:
        kind = master_rows.kind_of(name)
        if kind is Kind.TWIN:
            self._twin(name, path)
            return
        take = self._option if kind is Kind.OPTIONS else self._cash
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            for row in master_rows.rows(lines):
                self.seen += 1
                try:
                    dated = take(row)
                except Bad as exc:
                    self.skipped[f"{name}: {exc}"] += 1
                    continue
                if dated and dated > self.dates.get(name, ""):
                    self.dates[name] = dated

    def finish(self) -> None:
        """Two different tickers under one key are both left out: neither is surely the right one."""
        for key in self.clashes:
            del self.options[key]
            self.skipped["two tickers for one contract"] += 1
        disputed = [key for key, o in self.options.items() if self._lots_differ(o)] if self.twins else []
        for key in disputed:
            del self.options[key]
            self.skipped["the lot is not the JSON twin's"] += 1
        if not self.options:
            raise SystemExit("no option row in the sources")
        bad = sum(self.skipped.values())
        if bad > self.seen * MAX_SKIPPED_SHARE:
            raise SystemExit(f"{bad} of {self.seen} rows are bad: {dict(self.skipped.most_common(3))}")

    def lacking(self) -> list[str]:
        """The expected files that gave no row. Written into the index: it must not pass for one of all exchanges."""
        return sorted(set(self.expected) - self.dates.keys())

    def twin_of(self, option: OptionRow) -> TwinRow | None:
        """The option's entry in the JSON twin. An absent one denies nothing."""
        return self.twins.get((option.ticker, option.fy_token))

    def _lots_differ(self, option: OptionRow) -> bool:
        """An entry of another day proves nothing: lots do change."""
        twin = self.twin_of(option)
        return twin is not None and twin.dated == option.dated and twin.lot not in (None, option.lot)

    def _twin(self, name: str, path: Path) -> None:
        """All of it or nothing: without it only freeze quantities, circuit prices and trade status miss."""
        found: dict[TwinKey, TwinRow] = {}
        try:
            with path.open(encoding="utf-8") as text:
                found.update(filter(None, map(master_twin.option, master_twin.entries(text))))
        except ValueError:
            self.skipped[f"{name}: not JSON"] += 1
            return
        self.twins |= found

    def _option(self, row: list[str]) -> str | None:
        option = master_rows.option(row)
        if option is None:
            return None
        key = (option.exchange, option.underlying, option.expiry, option.strike, option.option_type)
        other = self.options.setdefault(key, option)
        if other.ticker != option.ticker:
            self.clashes.add(key)
        return option.dated

    def _cash(self, row: list[str]) -> str | None:
        cash = master_rows.cash(row)
        self.quoted[cash.fy_token] = cash.ticker
        return cash.dated


def write(master: Master, out: Path) -> None:
    """Write the index to `out`, and flush it to the disk."""
    underlyings: dict[tuple[str, str], str | None] = {}
    ends: dict[tuple[str, str, str], int] = {}
    for o in master.options.values():
        underlyings.setdefault((o.exchange, o.underlying), master.quoted.get(o.underlying_token))
        place = (o.exchange, o.underlying, o.expiry)
        ends[place] = min(o.session_end, ends.get(place, o.session_end))
    meta = {
        "built_at": datetime.now(UTC).isoformat(),
        "dates": json.dumps(master.dates),
        "lacking": json.dumps(master.lacking()),
        "rows": str(len(master.options)),
        "skipped": str(sum(master.skipped.values())),
    }
    db = sqlite3.connect(out, isolation_level=None)
    try:
        db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {SCHEMA}")
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.executemany("INSERT INTO underlyings VALUES (?, ?, ?)", ((*k, v) for k, v in underlyings.items()))
        db.executemany("INSERT INTO expiries VALUES (?, ?, ?, ?)", ((*k, v) for k, v in ends.items()))
        db.executemany(
            "INSERT INTO options VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_record(key, master.options[key], master) for key in sorted(master.options)),
        )
        db.execute(TICKER_INDEX)
        db.execute("COMMIT")
    finally:
        db.close()
    descriptor = os.open(out, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(master: Master, out: Path) -> None:
    """Read the written file back: sound, complete, and every thousandth contract under its key."""
    db = sqlite3.connect(f"{out.resolve().as_uri()}?mode=ro", uri=True)
    try:
        if (sound := db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise SystemExit(f"the written index is damaged: {sound}")
        if (count := db.execute("SELECT count(*) FROM options").fetchone()[0]) != len(master.options):
            raise SystemExit(f"expected {len(master.options)} contracts in the written index, was {count}")
        for key in list(master.options)[::1000]:
            found = db.execute(
                "SELECT ticker FROM options WHERE (exchange, underlying, expiry, strike, option_type)"
                " = (?, ?, ?, ?, ?)",
                key,
            ).fetchone()
            if found is None or found[0] != master.options[key].ticker:
                raise SystemExit(f"the written index does not find {master.options[key].ticker}")
    finally:
        db.close()


def _record(key: Key, o: OptionRow, master: Master) -> tuple[str | int | None, ...]:
    twin = master.twin_of(o) if master.twins else None
    today = twin if twin is not None and twin.dated == o.dated else None  # circuit prices are of one day
    return (
        *key,
        o.ticker,
        o.session_end,
        o.lot,
        o.tick,
        twin.freeze if twin else None,
        int(o.is_stock),
        o.dated,
        today.low if today else None,
        today.high if today else None,
        int(today.tradable) if today and today.tradable is not None else None,
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="index_build")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--expected", action="append", default=[], metavar="NAME")
    args = parser.parse_args(arguments)
    os.nice(NICENESS)
    gc.disable()  # a short life with a million objects and no cycles: looking for garbage costs a fifth of it
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    master = Master(args.expected)
    for source in args.source:
        name, _, path = source.partition("=")
        master.read(name, Path(path))
    master.finish()
    write(master, args.out)
    verify(master, args.out)
    report = {"rows": len(master.options), "skipped": dict(master.skipped), "dates": master.dates}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
