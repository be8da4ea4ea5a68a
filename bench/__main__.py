"""`python -m bench`, which is `make bench`: every number of the design's table, in one run, and which are met.

Each part runs in a process of its own, one after the other, on a machine that should have nothing else to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from bench.rows import AS_JSON, MISSED, Row

PARTS = ("start", "master", "alerts", "hung", "telemetry", "kills")


def rows_of(part: str) -> list[Row]:
    command = [sys.executable, "-W", "ignore", "-m", f"bench.{part}", AS_JSON]
    rows: list[Row] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            try:
                rows.append(Row(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # a line of somebody's log
            sys.stderr.write(f"  {rows[-1].what}: {rows[-1].measured}\n")
    if running.returncode not in (0, MISSED):
        rows.append(Row(part, f"ended with {running.returncode}", "an end without an error", met=False))
    return rows


def main(parts: tuple[str, ...]) -> int:
    load = os.getloadavg()[0]
    found = [row for part in parts for row in rows_of(part)]
    what, measured = (max(len(getattr(row, name)) for row in found) for name in ("what", "measured"))
    lines = [
        f"{row.what:{what}}  {row.measured:{measured}}  {row.target:32}  {row.verdict}".rstrip()
        for row in found
    ]
    missed = sum(not row.met for row in found)
    sys.stdout.write("\n".join(lines) + f"\n\n{missed} missed; load at the start {load:.1f}\n")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or PARTS))
