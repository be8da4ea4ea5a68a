"""The daily refresh of the contract index, as a job of this host: when it is due, and one run in a child process."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, time, timedelta
from pathlib import Path

from app.domain.alert import IST
from app.errors import NoMaster
from app.service.master_age import stale_files
from app.web.ports import Ports

FROM = time(8)
"""IST. Before it the day's files are hardly there, and what was good yesterday evening still is."""
WORDS = f"from {FROM:%H:%M} IST until fresh"
TRY_AGAIN = timedelta(minutes=5)
TRY_SOON = timedelta(seconds=20)
"""While there is no index at all, and no entry passes."""
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
    try:
        age = ports.contracts.age()
    except NoMaster:
        return last is None or now - last >= TRY_SOON
    if last is not None and now - last < TRY_AGAIN:
        return False
    if ports.settings.has_real_market:
        if last is None:
            return True
        if now.astimezone(IST).time() < FROM:
            return False
    return bool(stale_files(age, now, ports.settings.options_files))


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
