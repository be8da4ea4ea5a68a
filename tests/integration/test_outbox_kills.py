"""A sender that is killed twenty times, at any moment after its commit: every page comes, and none comes twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.test_notify import Sink, serving, wait_for

KILLS = 20
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.alone]


def test_twenty_kills_lose_no_page_and_send_none_twice(sqlite_url: str, tmp_path: Path) -> None:
    rng, sink = random.Random(7), Sink("ok", takes_s=0.3)
    with serving(sink) as urls:
        command = [sys.executable, "-m", "tests.integration.outbox_worker", sqlite_url, urls]
        worker = subprocess.Popen(
            [*command, str(tmp_path / "receipts")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None

        pids: list[int] = []

        def begin(number: int) -> int:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(f"{number}\n")
            worker.stdin.flush()
            said = next(line for line in worker.stdout if line.startswith("committed "))  # beside log lines
            pids.append(int(said.split()[1]))
            return pids[-1]

        try:
            for number in range(KILLS):
                pid = begin(number)
                # At once, in the middle of sending, or after it; a new one sends only when the dead one's lease ended.
                time.sleep(rng.choice((0.0, 0.2, 3.5)) + rng.random() * 0.8)
                os.kill(pid, signal.SIGKILL)
            begin(-1)
            wanted = [f"{kind} {n:02d}." for n in range(KILLS) for kind in ("state", "joined")]
            wait_for(lambda: all(w in sink.text() for w in wanted), 90)
            time.sleep(1)
        finally:
            for pid in pids[-1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            worker.stdin.close()
            worker.wait(10)
            worker.stdout.close()
    assert [ref for ref, times in Counter(sink.refs).items() if times > 1] == []
    assert {w: sink.text().count(w) for w in wanted} == dict.fromkeys(wanted, 1)
