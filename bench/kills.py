"""kill -9 at points all over the service, judged by the broker's ledger: a sample; `make chaos` runs all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from bench.rows import Row, show

KILLS, IN_GUNICORN, STOPS = 200, 5, 2


def rows() -> Iterator[Row]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.chaos", "--kills", str(KILLS), "--parts", "0"]
    command += ["--gunicorn", str(IN_GUNICORN), "--stops", str(STOPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    killed = next((line for line in lines if re.match(r"\d+ kills in", line)), "no kills counted")
    yield Row(
        "kill -9 at any point, a sample",
        f"{killed}: {lines[-1].strip()[:80]}",
        "0 doubled, 0 lost, 0 unaccounted",
        met=done.returncode == 0,
    )


if __name__ == "__main__":
    sys.exit(show(rows()))
