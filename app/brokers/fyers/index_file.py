"""One contract-index file, opened for reading. Its name holds schema version and source date."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from app.brokers.fyers.index_build import SCHEMA_VERSION
from app.brokers.fyers.master_rows import Kind, kind_of
from app.domain.alert import ExpiryRule
from app.domain.contract import Expiry, ExpiryChoice
from app.service.records import MasterAge

PATTERN = f"contracts-v{SCHEMA_VERSION}-*.sqlite"
ANY_VERSION = "contracts-v*.sqlite"
UNREADABLE = (sqlite3.Error, ValueError, KeyError)
"""What `open_index` raises for a file that is no whole index."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a rule picks at any moment from `since` to just before `until`: no session ends between them."""

    since: datetime
    until: datetime
    choice: ExpiryChoice


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """One opened index file. The dicts fill as underlyings are asked for: a few hundred at most."""

    path: Path
    db: sqlite3.Connection
    age: MasterAge
    lacking: frozenset[str]
    """The options files that should be in it and are not: about their exchanges it knows nothing."""
    underlyings: dict[tuple[str, str], str | None]
    """(exchange, underlying) -> the underlying's own quote ticker, where known."""
    listed: dict[tuple[str, str], tuple[Expiry, ...]]
    chosen: dict[tuple[str, str, ExpiryRule], Chosen]
    process: int


def newest_index(directory: Path) -> Path | None:
    """The index that was swapped in last; None when there is none of this schema version."""
    found = []
    for path in directory.glob(PATTERN):
        with suppress(FileNotFoundError):  # deleted between the listing and the look
            found.append((path.stat().st_mtime_ns, path))
    return max(found)[1] if found else None


def options_in(path: Path) -> set[str]:
    """The options files that this index holds contracts of; none when it is no whole index."""
    with suppress(*UNREADABLE):
        index = open_index(path)
        index.db.close()
        return {name for name in index.age.dates if kind_of(name) is Kind.OPTIONS}
    return set()


def open_index(path: Path) -> OpenIndex:
    db = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro&immutable=1",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
    )
    try:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        age = MasterAge(
            built_at=datetime.fromisoformat(meta["built_at"]),
            dates={name: date.fromisoformat(day) for name, day in json.loads(meta["dates"]).items()},
            rows=int(meta["rows"]),
            skipped=int(meta["skipped"]),
        )
        lacking = frozenset(json.loads(meta["lacking"]))
        underlyings = {
            (exchange, underlying): ticker
            for exchange, underlying, ticker in db.execute(
                "SELECT exchange, underlying, ticker FROM underlyings"
            )
        }
    except BaseException:
        db.close()
        raise
    return OpenIndex(path, db, age, lacking, underlyings, {}, {}, os.getpid())
