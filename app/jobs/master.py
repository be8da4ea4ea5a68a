"""The daily refresh of the contract index, as a job of this host: when it is due, and one run in a child process."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, time, timedelta
from pathlib import Path

from app.domain.alert import IST
from app.domain.contract import ist_date
from app.domain.session import previous_trading_day
from app.errors import NoMaster
from app.web.ports import Ports

FROM = time(8)
"""IST. Before it the day's files are hardly there, and what was good yesterday evening still is."""
WORDS = f"from {FROM:%H:%M} IST until fresh"
TRY_AGAIN = timedelta(minutes=5)
LIMIT_S = 240.0
"""Downloads and build have their own bounds below this; a child that passes it hangs."""
STALE = 3
"""The child's exit code for an index of an older day (app/refresh.py)."""
ROOT = Path(__file__).resolve().parents[2]
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from app.refresh import main; main(sys.argv[2:])"


def due(ports: Ports, last: datetime | None) -> bool:
    """Until every options file is of the previous trading day. `last`: when this process tried last.

    The first time after a start it is due in any case: a start waits for no JSON twin.
    """
    now = ports.clock.now()
    if last is not None and now - last < TRY_AGAIN:
        return False
    try:
        dates = ports.contracts.age().dates
    except NoMaster:
        return True
    if ports.settings.has_real_market:
        if last is None:
            return True
        if now.astimezone(IST).time() < FROM:
            return False
    wanted = previous_trading_day(ist_date(now))
    listed = [dates.get(name) for name in options_files(ports, set(dates))]
    return any(day is None or day < wanted for day in listed)


def options_files(ports: Ports, present: set[str]) -> list[str]:
    """The options files that an index should have: the settings', or the paper exchange's own."""
    if not ports.settings.has_real_market:
        return sorted(name for name in present if "_FO" in name)
    names = (n if "." in n else f"{n}.csv" for n in ports.settings.symbol_master_files)
    return [n for n in names if "_FO" in n and n.endswith(".csv")]


def run(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Fetch the symbol master and rebuild this host's contract index, beside the requests. Raises NoMaster."""
    directory = str(ports.settings.instance_dir.resolve())
    command = [sys.executable, "-c", CHILD, str(ROOT), "--instance-dir", directory]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoMaster(f"the contract index could not be refreshed: {error}") from error
    if done.returncode not in (0, STALE):
        raise NoMaster(done.stderr.strip().rsplit("\n", 1)[-1] or f"the refresh ended with {done.returncode}")
    return "; ".join(line.strip() for line in done.stdout.splitlines())
