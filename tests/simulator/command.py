"""The command line: `python -m tests.fyers_sim --port 0 --ledger PATH [--masters DIR] ...`.

Prints one line of JSON with the URLs, the process id and the ledger's path, then serves until SIGTERM or
Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulator.clock import IST, SimClock, real_clock

if TYPE_CHECKING:
    from tests.fyers_sim import FyersSim


def parser() -> argparse.ArgumentParser:
    """The options; each is a constructor argument of FyersSim."""
    options = argparse.ArgumentParser(
        prog="python -m tests.fyers_sim", description="A Fyers v3 simulator on loopback."
    )
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--ledger", type=Path, required=True)
    options.add_argument(
        "--masters", type=Path, help="folder of symbol master files; a small sample without it"
    )
    options.add_argument("--token", action="append", help="a static access token (repeatable); default: t")
    options.add_argument("--app-id", default="SIMAPP-200")
    options.add_argument("--secret", default="simsecret")
    options.add_argument("--pin", default="1234")
    options.add_argument("--fill-mode", default="instant")
    options.add_argument("--no-rate-limits", action="store_true")
    options.add_argument("--no-fsync", action="store_true")
    options.add_argument("--log-reads", action="store_true")
    options.add_argument("--now", help="start the clock at this ISO time (IST unless it says otherwise)")
    return options


def run(build: Callable[..., FyersSim], arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    chosen = parser().parse_args(arguments)
    clock = SimClock(_instant(chosen.now)) if chosen.now else real_clock
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    simulator = build(
        port=chosen.port,
        ledger=chosen.ledger,
        masters=chosen.masters,
        tokens=set(chosen.token or ["t"]),
        app_id=chosen.app_id,
        secret=chosen.secret,
        pin=chosen.pin,
        fill_mode=chosen.fill_mode,
        rate_limits=not chosen.no_rate_limits,
        fsync=not chosen.no_fsync,
        log_reads=chosen.log_reads,
        clock=clock,
    )
    with simulator as sim:
        line = {
            "base_url": sim.base_url,
            "data_url": sim.data_url,
            "master_url": sim.master_url,
            "admin_url": sim.admin_url,
            "ledger": str(sim.ledger.path),
            "pid": os.getpid(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        stop.wait()
    return 0


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=IST)
