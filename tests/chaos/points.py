"""Where a process can die: every commit, and every connect, write and read of a socket to the broker.

The points are found, not listed: the database's commit and the broker's socket class are wrapped at their one place,
and each passage gets the name of the code that led to it. `KNOWN` is only a register: a name that a run meets and
the register lacks fails the run, so that whoever adds a commit or a call to the broker sees that it is killed too.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from sqlalchemy.engine import Connection

from app.brokers.fyers.deadline_socket import DeadlineSocket

APP = str(Path(__file__).parents[2] / "app") + os.sep
Kind = Literal["commit", "connect", "write", "read"]
Phase = Literal["before", "half", "after"]
Action = Literal["kill", "stop", "fail"]
"""`fail`: the step raises what the driver or the system raises when the other side is gone."""

PHASES: dict[str, tuple[Phase, ...]] = {
    "commit": ("before", "after"),
    "connect": ("before", "after"),
    # Half of a request is a request that the broker must not act on.
    "write": ("before", "half", "after"),
    "read": ("before", "after"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """The `nth` passage (from 0) of one name, counted from the moment of arming."""

    kind: Kind
    name: str
    nth: int
    phase: Phase

    def __str__(self) -> str:
        return f"{self.phase} {self.kind} {self.name}#{self.nth}"


Plan = Callable[[Point], Action | None]


@dataclass
class Tracer:
    """One process's passages. Unarmed it counts nothing."""

    passed: list[Point] = field(default_factory=list)
    armed: bool = False
    _plan: Plan = lambda _: None
    trouble: Plan | None = None
    """What goes wrong besides, armed or not."""
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def arm(self, point: Point | None = None, action: Action = "kill") -> None:
        """Count from now on, and do `action` when `point` is passed. Without a point: only count."""
        self.arm_by(lambda passed: action if passed == point else None)

    def arm_by(self, plan: Plan) -> None:
        """Count from now on, and do what `plan` says of each passage."""
        self.passed, self._counts, self.armed, self._plan = [], Counter(), True, plan

    def disarm(self) -> None:
        self.armed, self.trouble = False, None

    def around(
        self,
        kind: Kind,
        work: Callable[[], Any],
        error: Callable[[], Exception],
        half: Callable[[], object] | None = None,
    ) -> Any:
        if not self.armed and self.trouble is None:
            return work()
        name = name_of(kind)
        nth = self._counts[kind, name]
        self._counts[kind, name] += 1
        self._pass(Point(kind, name, nth, "before"), error)
        if half is not None:
            self._pass(Point(kind, name, nth, "half"), error, half)
        result = work()
        self._pass(Point(kind, name, nth, "after"), error)
        return result

    def _pass(
        self, point: Point, error: Callable[[], Exception], first: Callable[[], object] | None = None
    ) -> None:
        action = self.trouble(point) if self.trouble is not None else None
        if self.armed:
            self.passed.append(point)
            action = self._plan(point) or action
        if action is None:
            return
        if first is not None:
            first()
        if action == "fail":
            raise error()
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def once(phase: Phase, kind: Kind, name: str, action: Action) -> Plan:
    """Do `action` at the first passage whose name begins so."""
    left = [action]

    def plan(point: Point) -> Action | None:
        fits = (point.phase, point.kind) == (phase, kind) and point.name.startswith(name)
        return left.pop() if fits and left else None

    return plan


def unreachable(name: str, times: float = math.inf) -> Plan:
    """The broker cannot be reached by what begins so: no byte leaves on an open connection, and no connect succeeds,
    for so many `times`; what fails on an open one is tried on a new one.
    """
    left = [times]

    def plan(point: Point) -> Action | None:
        fits = point.phase == "before" and point.kind in ("connect", "write") and point.name.startswith(name)
        if not fits or left[0] <= 0:
            return None
        left[0] -= point.kind == "connect"
        return "fail"

    return plan


TRACER = Tracer()
"""The one of this process; a fork has its own copy."""


def module_of(path: Path) -> str:
    """A file's short name; a package's own file goes by the package's."""
    return path.parent.name if path.stem == "__init__" else path.stem


def name_of(kind: Kind) -> str:
    """`module:function` of the service's code that led here; for sockets the broker's operation in front of it."""
    operation, caller = "", "?"
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(APP):
            where = code.co_filename[len(APP) :]
            function = code.co_qualname.partition(".<locals>")[0]
            if where == "brokers/fyers/broker.py" and function.startswith("FyersExchanger."):
                operation = function.removeprefix("FyersExchanger.")
            # The wrapper that only measures is nobody's step.
            if not where.startswith(("store/", "brokers/", "telemetry/broker.py")):
                caller = f"{module_of(Path(where))}:{function}"
                break
        frame = frame.f_back
    return caller if kind == "commit" else f"{operation} < {caller}"


def install() -> None:
    """Wrap the commit of every SQLAlchemy connection and the broker's sockets, in this process and its forks."""
    commit = Connection._commit_impl  # every way of committing ends there
    connect, sendall, recv_into = DeadlineSocket.connect, DeadlineSocket.sendall, DeadlineSocket.recv_into

    def gone() -> Exception:
        return ConnectionRefusedError("refused by the test")

    def traced_commit(self: Connection) -> None:
        TRACER.around(
            "commit",
            lambda: commit(self),
            lambda: self.dialect.loaded_dbapi.OperationalError("lost by the test"),
        )

    def traced_connect(self: DeadlineSocket, address: Any) -> None:
        TRACER.around("connect", lambda: connect(self, address), gone)

    def traced_sendall(self: DeadlineSocket, data: Any, flags: int = 0) -> None:
        part = memoryview(data)[: len(data) // 2]
        TRACER.around(
            "write", lambda: sendall(self, data, flags), gone, lambda: socket.socket.send(self, part)
        )

    def traced_recv_into(self: DeadlineSocket, *given: Any) -> int:
        if self.watch is not None and self.watch.has_whole_answer:
            return recv_into(self, *given)  # reads nothing
        return int(TRACER.around("read", lambda: recv_into(self, *given), gone))

    Connection._commit_impl = traced_commit  # type: ignore[method-assign]
    DeadlineSocket.connect = traced_connect  # type: ignore[method-assign,assignment]
    DeadlineSocket.sendall = traced_sendall  # type: ignore[method-assign]
    DeadlineSocket.recv_into = traced_recv_into  # type: ignore[method-assign,assignment]
