"""A worker's last steps, in a process of its own: they end with the process, whatever hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import runpy, sys, time
from types import SimpleNamespace as Some

steps = runpy.run_path("gunicorn.conf.py")

def said(word):
    def step(*given):
        print(word, *given, flush=True)
        if word == sys.argv[1]:
            time.sleep(60)
    return step

ports = Some(beside=Some(flush=said("notices")), watcher=Some(close=said("traces")))
extensions = {"ports": ports, "scheduler": Some(stop=said("leases")), "order_updates": Some(stop=said("feed"))}
steps["worker_exit"](None, Some(wsgi=Some(extensions=extensions)))
"""


@pytest.mark.parametrize(
    ("hangs", "steps"),
    [
        ("", ["feed", "leases", "notices 0.3", "traces"]),
        ("leases", ["feed", "leases"]),
        ("notices", ["feed", "leases", "notices 0.3"]),
    ],
)
def test_what_is_kept_before_a_worker_ends(tmp_path: Path, hangs: str, steps: list[str]) -> None:
    """Among them the notices that were told outside of a transaction: a page must not end with its process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, hangs],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "INSTANCE_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.splitlines() == steps, done.stderr[-500:]
    assert done.returncode == 1, "it did not end by SystemExit"
