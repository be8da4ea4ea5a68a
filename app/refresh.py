"""`python -m app.refresh`: bring the contract index up to date, from the broker or from the paper exchange.

Always a process of its own beside a serving one: the full look at 98,000 rows holds the interpreter for half a second.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.contract import ist_date
from app.domain.session import previous_trading_day, use_calendar
from app.errors import NoMaster
from app.settings import Settings, load

if TYPE_CHECKING:
    from app.brokers.fyers.master_fetch import Copies, Report, Vault
    from app.brokers.fyers.master_http import Get
    from app.brokers.fyers.symbols import BuildReport

NICENESS = 10
"""Requests come first where cores are few."""
STALE = 3
"""The exit code of a refresh that left a whole index of an older day."""
START_LIMIT_S, RESTART_LIMIT_S = 25.0, 5.0
"""What a start waits for the downloads: the first one, and one that has an index already and may be in a hurry. The
rest, the large JSON twins too, comes by the job a minute later.
"""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh left: the index, and how each source file fared. `stale` names the files that are too old."""

    build: BuildReport
    files: tuple[Report, ...] = ()
    stale: tuple[str, ...] = ()
    not_shared: tuple[str, ...] = ()
    """What could not be copied to the bucket, and why."""

    def __str__(self) -> str:
        lines = [f"contract index: {self.build}", *(f"  {f}" for f in self.files)]
        if self.stale:
            lines.append(
                f"  older than the previous trading day: {', '.join(self.stale)}; no entries in those"
            )
        lines += [f"  not copied: {words}" for words in self.not_shared]
        return "\n".join(lines)


def refresh(
    settings: Settings,
    *,
    accept: bool = False,
    at_start: bool = False,
    now: datetime | None = None,
    get: Get | None = None,
    vault: Vault | None = None,
) -> Refreshed:
    """Fetch, check, build, swap. Raises NoMaster when no index can be built: the last one then stays.

    A file that cannot be had, or that does not pass, is replaced by its last good copy, with that one's own date;
    without a copy, the present index stays when it has that file's contracts.
    `at_start`: nobody is served yet, so without the twins and within a short time; the copies in the bucket
    (`vault`, by default that of the settings) are read then, but not written. `accept`: see Copies.bring.
    """
    from app.brokers.fyers import symbols

    now = now or datetime.now(UTC)
    use_calendar(settings.own_calendar)
    directory = settings.index_dir
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory / "refresh.lock"):
        if not settings.has_real_market:
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                return Refreshed(symbols.refresh(directory, _paper_sources(Path(scratch), now)))
        copies = _copies(settings, directory / "sources", get, vault)
        return _real(settings, directory, now, copies, accept=accept, at_start=at_start)


def _copies(settings: Settings, directory: Path, get: Get | None, vault: Vault | None) -> Copies:
    from app.brokers.fyers.master_fetch import Copies
    from app.brokers.fyers.master_http import http_get
    from app.store.masters_gcs import GcsMasters

    if vault is None and settings.gcs_bucket_name:
        vault = GcsMasters(settings.gcs_bucket_name)
    return Copies(directory, get or http_get, vault=vault)


def _real(
    settings: Settings, directory: Path, now: datetime, copies: Copies, *, accept: bool, at_start: bool
) -> Refreshed:
    from app.brokers.fyers import symbols
    from app.brokers.fyers.index_file import newest_index, options_in
    from app.brokers.fyers.master_fetch import DOWNLOAD_LIMIT_S, file_names
    from app.brokers.fyers.master_rows import Kind, kind_of

    today = ist_date(now)
    wanted = previous_trading_day(today)
    asked = file_names(settings.symbol_master_files, twins=not at_start)
    all_names = file_names(settings.symbol_master_files, twins=True)
    at_start_s = START_LIMIT_S if newest_index(directory) is None else RESTART_LIMIT_S
    limit_s = at_start_s if at_start else DOWNLOAD_LIMIT_S
    files = copies.bring(
        settings.symbol_master_url, asked, today, wanted, accept=accept, limit_s=limit_s
    ) + copies.kept([n for n in all_names if n not in asked])
    sources = {f.name: f.path for f in files if f.path is not None}
    options = [f for f in files if kind_of(f.name) is Kind.OPTIONS]
    if not any(f.path for f in options):
        raise NoMaster("no options file could be had: " + "; ".join(str(f) for f in options))
    present = newest_index(directory)
    if present is not None and (lost := {f.name for f in options if f.path is None} & options_in(present)):
        raise NoMaster(
            f"the present index stays: a new one would lose {', '.join(sorted(lost))}; "
            + "; ".join(str(f) for f in options)
        )
    build = symbols.refresh(directory, sources, [f.name for f in options])
    for file in files:
        copies.promote(file)
    stale = tuple(f.name for f in options if f.dated < wanted.isoformat())
    not_shared = () if at_start else tuple(copies.share(files))
    return Refreshed(build, tuple(files), stale, not_shared)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One refresh of this directory at a time; the lock ends with the process. Raises NoMaster when it is taken."""
    with path.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoMaster("another process is refreshing the contract index right now") from None
        yield


def _paper_sources(scratch: Path, now: datetime) -> dict[str, Path]:
    from app.brokers.paper.master import paper_master

    sources = {}
    for name, content in paper_master(ist_date(now)).items():
        (scratch / name).write_bytes(content)
        sources[name] = scratch / name
    return sources


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="app.refresh")
    parser.add_argument(
        "--start", action="store_true", help="nobody is served yet: no JSON twins, a short wait"
    )
    parser.add_argument("--instance-dir", type=Path)
    args = parser.parse_args(arguments)
    if not args.start:
        os.nice(NICENESS)
    try:
        done = refresh(
            load(**({"instance_dir": args.instance_dir} if args.instance_dir else {})), at_start=args.start
        )
    except Exception as exc:  # noqa: BLE001 - the caller goes on with the last index; the reason is shown
        sys.exit(f"contract index not refreshed: {type(exc).__name__}: {exc}")
    print(done, flush=True)  # noqa: T201
    sys.exit(STALE if done.stale else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
