"""Children of this process, and what they report."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")
Report = Callable[[dict[str, Any]], None]


class Child:
    """One fork that does `work` and is gone; what it prints goes to `log`."""

    def __init__(self, pid: int, out: int) -> None:
        self.pid, self._out = pid, out
        self._status: int | None = None

    @classmethod
    def start(cls, work: Callable[[Report], object], log: Path) -> Self:
        out, into = os.pipe()
        pid = os.fork()
        if pid:
            os.close(into)
            return cls(pid, out)
        status = 1
        try:
            os.close(out)
            printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            work(lambda line: _write(into, line))
            status = 0
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            _write(into, {"error": traceback.format_exc()})
        finally:
            os._exit(status)

    def stopped(self) -> bool:
        """Wait until it stops (True) or ends."""
        status = os.waitpid(self.pid, os.WUNTRACED)[1]
        if not os.WIFSTOPPED(status):
            self._status = status
        return self._status is None

    def finish(self) -> tuple[list[dict[str, Any]], int]:
        """Everything that it reported until its end, and its wait status."""
        with os.fdopen(self._out) as lines:
            said = [json.loads(line) for line in lines if line.endswith("\n")]
        return said, os.waitpid(self.pid, 0)[1] if self._status is None else self._status


def _write(into: int, line: dict[str, Any]) -> None:
    os.write(into, json.dumps(line).encode() + b"\n")


def fork_each(directory: Path, arguments: Iterable[T], work: Callable[[T], Any]) -> list[Any]:
    """`work` of each argument, all at once, each in a fork of this process; what they return, through JSON."""
    directory.mkdir()
    if threading.active_count() != 1:
        raise AssertionError(f"expected no thread at the fork, were {threading.enumerate()}")
    pids = []
    for number, argument in enumerate(arguments):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                (directory / str(number)).write_text(json.dumps(work(argument)))
                status = 0
            except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    if any(statuses):
        raise AssertionError(f"a fork failed: {statuses}")
    return [json.loads((directory / str(number)).read_text()) for number in range(len(pids))]
