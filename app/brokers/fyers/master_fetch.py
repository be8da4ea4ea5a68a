"""The last good copy of each symbol-master file, and the full look at a new one before it may take its place.

Everything is judged against the copy that was good last time, never against a fixed number: how many contracts are
listed is the exchanges' affair.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from app.brokers.fyers import master_rows, master_twin
from app.brokers.fyers.index_build import MAX_SKIPPED_SHARE
from app.brokers.fyers.master_http import NOT_MODIFIED, OK, DownloadError, Get, http_get
from app.brokers.fyers.master_rows import COLUMNS, Bad, Kind, kind_of
from app.errors import StoreUnavailable

DOWNLOAD_LIMIT_S = 90.0
"""All files together, by the clock: a server that drips keeps nobody longer. 13 MB take seconds, a twin of 90 MB,
compressed to a tenth, too.
"""
LEAST_SHARE, MOST_SHARE = 0.6, 3.0
"""Of the last good copy's rows and bytes. The day after a monthly expiry a third of all contracts can be gone at once;
half a file must not pass.
"""
MOST_BYTES = 1 << 29
"""For a file of which there is no copy yet: it must not fill the disk."""
FROM_VAULT = "from the bucket"
TWIN_ENDING = "_sym_master.json"


class RefusedFile(Exception):
    """A download that does not replace the last good copy. Its text, after `NSE_FO.csv: `, says why."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What is kept beside a file. `dated` is its newest inside date, empty when it has none."""

    rows: int
    size: int
    dated: str
    etag: str = ""
    modified: str = ""
    taken_at: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """How one file fared. `why` is empty when all is well; `path` None when there is no copy at all."""

    name: str
    path: Path | None
    dated: str
    rows: int
    word: str
    why: str = ""
    candidate: Copy | None = None
    """A new file, good by itself: it becomes the last good copy once an index has been built of it."""

    def __str__(self) -> str:
        of = f" of {self.dated}, {self.rows} rows" if self.path else ""
        return f"{self.name}: {self.word}{of}" + (f" ({self.why})" if self.why else "")


class Vault(Protocol):
    """A place outside this host for the last good copies. Every call raises StoreUnavailable."""

    def dated(self, name: str) -> str | None:
        """The inside date of the copy that is kept there; None when there is none."""

    def put(self, name: str, path: Path, dated: str) -> bool:
        """Keep this file unless the same or a newer one is there. Whether it was written."""

    def fetch(self, name: str, out: BinaryIO, most_bytes: int) -> None:
        """Write the copy to `out`."""


def file_names(names: Sequence[str], *, twins: bool) -> list[str]:
    """The files behind SYMBOL_MASTER_FILES: `NSE_FO` is NSE_FO.csv, and its JSON twin comes after all the others."""
    plain = [n for n in names if n]
    files = [n if "." in n else f"{n}{'.json' if n.endswith('_sym_master') else '.csv'}" for n in plain]
    if twins:
        options = [n for n in files if kind_of(n) is Kind.OPTIONS]
        files += [f"{n.removesuffix('.csv')}{TWIN_ENDING}" for n in options]
    return list(dict.fromkeys(files))


class Copies:
    """The last good copies in `directory`. For one process at a time; the caller holds the lock."""

    def __init__(
        self,
        directory: Path,
        get: Get = http_get,
        monotonic: Callable[[], float] = time.monotonic,
        vault: Vault | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._get, self._monotonic, self._vault = directory, get, monotonic, vault

    def bring(
        self,
        base_url: str,
        names: Sequence[str],
        today: date,
        not_before: date,
        *,
        accept: bool = False,
        limit_s: float = DOWNLOAD_LIMIT_S,
    ) -> list[Report]:
        """Ask for each file of `names`, in this order. One that fails leaves the others alone, and its own last good
        copy in use. `not_before` is the trading day that an options file has to be of; `accept` takes a person's word
        that a file much smaller or larger than the last one is right.
        """
        ends_at = self._monotonic() + limit_s
        return [self._one(base_url, name, (today, not_before), ends_at, accept=accept) for name in names]

    def kept(self, names: Sequence[str]) -> list[Report]:
        """The copies as they stand, without asking anybody."""
        return [self._held(name, "kept", "") for name in names]

    def promote(self, report: Report) -> None:
        """Make a new file the last good copy. What is known of it is written before it moves: killed between the two
        moves, `_copy` finds it there.
        """
        if report.candidate is None or report.path is None:
            return
        meta = self._meta(report.name)
        part = _coming(meta)
        part.write_text(json.dumps(asdict(report.candidate)), encoding="utf-8")
        report.path.replace(self._directory / report.name)
        part.replace(meta)

    def share(self, reports: Sequence[Report]) -> list[str]:
        """Bring this host's good copies to the vault. What went wrong; it is no reason to fail a refresh."""
        problems = []
        for report in reports:
            if self._vault is None or report.path is None or report.word == FROM_VAULT:
                continue
            try:
                self._vault.put(report.name, self._directory / report.name, report.dated)
            except StoreUnavailable as error:
                problems.append(error.detail)
        return problems

    def _one(
        self, base_url: str, name: str, days: tuple[date, date], ends_at: float, *, accept: bool
    ) -> Report:
        copy = self._copy(name)
        part = self._directory / f"{name}.part"
        try:
            got = self._download(f"{base_url.rstrip('/')}/{name}", part, copy, ends_at)
            if got is None:
                return self._held(name, "unchanged", "")
            facts = inspect(name, part)
            check(kind_of(name), facts, None if copy is None or accept else copy, copy, days)
        except (DownloadError, RefusedFile) as refusal:
            part.unlink(missing_ok=True)
            return self._from_vault(name, part, copy, days, str(refusal))
        return _candidate(name, part, "new", facts, *got)

    def _from_vault(
        self, name: str, part: Path, copy: Copy | None, days: tuple[date, date], why: str
    ) -> Report:
        """Another host's good copy, where this host has none or one that is too old. It passes the same look."""
        is_fresh = copy is not None and copy.dated >= days[1].isoformat()
        if self._vault is None or is_fresh:
            return self._held(name, "kept", why)
        try:
            dated = self._vault.dated(name)
            if dated is None or (copy is not None and dated <= copy.dated):
                return self._held(name, "kept", why)
            with part.open("wb") as out:
                self._vault.fetch(name, out, MOST_BYTES)
            facts = inspect(name, part)
            check(kind_of(name), facts, copy, copy, days)
        except (StoreUnavailable, RefusedFile) as refusal:
            part.unlink(missing_ok=True)
            return self._held(name, "kept", f"{why}; the bucket's copy: {refusal}")
        return replace(_candidate(name, part, FROM_VAULT, facts), why=why)

    def _download(self, url: str, part: Path, copy: Copy | None, ends_at: float) -> tuple[str, str] | None:
        """ETag and Last-Modified of a new file, now in `part`; None when the copy is still what the server has."""
        known = {} if copy is None else {"If-None-Match": copy.etag, "If-Modified-Since": copy.modified}
        most = int(copy.size * MOST_SHARE) + (1 << 20) if copy else MOST_BYTES
        with part.open("wb") as out:
            got = self._get(url, {k: v for k, v in known.items() if v}, out, most, ends_at)
            out.flush()
            os.fsync(out.fileno())
        if got.status == NOT_MODIFIED and copy is not None:
            part.unlink()
            return None
        if got.status != OK:
            raise DownloadError(f"the server answered {got.status}")
        return got.etag, got.modified

    def _held(self, name: str, word: str, why: str) -> Report:
        copy = self._copy(name)
        if copy is None:
            return Report(name, None, "", 0, "missing", why)
        return Report(name, self._directory / name, copy.dated, copy.rows, word, why)

    def _copy(self, name: str) -> Copy | None:
        """None when there is no copy, or not both halves of one."""
        for meta in (self._meta(name), _coming(self._meta(name))):
            with suppress(OSError, ValueError, TypeError):
                found = Copy(**json.loads(meta.read_text(encoding="utf-8")))
                if (self._directory / name).stat().st_size == found.size:
                    return found
        return None

    def _meta(self, name: str) -> Path:
        return self._directory / f"{name}.meta"


def _coming(meta: Path) -> Path:
    return meta.with_name(f"{meta.name}.part")


def _candidate(name: str, path: Path, word: str, facts: Copy, etag: str = "", modified: str = "") -> Report:
    new = Copy(facts.rows, facts.size, facts.dated, etag, modified, datetime.now(UTC).isoformat())
    return Report(name, path, facts.dated, facts.rows, word, candidate=new)


def inspect(name: str, path: Path) -> Copy:
    """A full look at one file by itself. Raises RefusedFile."""
    with path.open("rb") as raw:
        head = raw.read(4096).lstrip()
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - 1))
        ends_whole = raw.read(1) in b"\r\n}]"
    if not head:
        raise RefusedFile("it is empty")
    if head.startswith(b"<"):
        raise RefusedFile("it is a web page, not a symbol master")
    if kind_of(name) is Kind.TWIN:
        return _inspect_twin(path, size)
    if head.split(b"\n", 1)[0].count(b",") < COLUMNS - 1:
        raise RefusedFile(f"it is not a symbol master of {COLUMNS} columns")
    if not ends_whole:
        raise RefusedFile("its last row is cut off: the download was not whole")
    return _inspect_rows(kind_of(name), path, size)


def _inspect_rows(kind: Kind, path: Path, size: int) -> Copy:
    good = bad = options = 0
    dated = ""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            for row in master_rows.rows(lines):
                try:
                    found = master_rows.option(row) if kind is Kind.OPTIONS else master_rows.cash(row)
                except Bad:
                    bad += 1
                    continue
                good += 1
                if found is not None:
                    options += 1
                    dated = max(dated, found.dated or "")
    except csv.Error as error:
        raise RefusedFile(f"it is no CSV file: {error}") from error
    if bad > (good + bad) * MAX_SKIPPED_SHARE:
        raise RefusedFile(f"{bad} of its {good + bad} rows are bad")
    if not options:
        raise RefusedFile("it has no usable row")
    return Copy(good, size, dated)


def _inspect_twin(path: Path, size: int) -> Copy:
    rows, dated = 0, ""
    try:
        with path.open(encoding="utf-8") as text:
            for rows, entry in enumerate(master_twin.entries(text), 1):  # noqa: B007 - its last value is the count
                dated = max(dated, str(entry.get("lastUpdate") or ""))
    except ValueError as error:
        raise RefusedFile(f"it is not whole JSON: {error}"[:200]) from error
    if not rows:
        raise RefusedFile("it has no entry")
    return Copy(rows, size, dated)


def check(kind: Kind, new: Copy, measure: Copy | None, copy: Copy | None, days: tuple[date, date]) -> None:
    """Judge a new file by the last good copy and the calendar. Raises RefusedFile."""
    today, not_before = days
    if new.dated > (today + timedelta(days=1)).isoformat():
        raise RefusedFile(f"it is of {new.dated}, a day that has not come yet")
    if measure is not None:
        for what, now, before in (("rows", new.rows, measure.rows), ("bytes", new.size, measure.size)):
            if not before * LEAST_SHARE <= now <= before * MOST_SHARE:
                raise RefusedFile(
                    f"it has {now} {what}, the last good copy has {before}; if that is right: "
                    "flask --app app.wsgi refresh-master --accept"
                )
    if copy is None:
        return  # an old file is better than none: exits work by it, and entries go by its date
    if new.dated < copy.dated:
        raise RefusedFile(f"it is of {new.dated}, older than the last good copy")
    if kind is Kind.OPTIONS and new.dated < not_before.isoformat():
        raise RefusedFile(f"it is of {new.dated}, expected {not_before} or later")
