"""The simulated broker in a process of its own, which outlives every victim; its ledger is on disk before it answers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fyers_sim import FyersSim, SimClock, read_ledger

QUIET_WITHIN_S = 10.0


class Door:
    """The simulator's admin door, for any process that knows the address."""

    def __init__(self, root_url: str) -> None:
        self.root_url = root_url

    def _ask(self, method: str, what: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.root_url).netloc, timeout=10)
        try:
            connection.request(method, f"/__sim__/{what}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise AssertionError(f"the simulator answered {answer.status}: {said}")
        return said

    def call(self, method: str, **args: object) -> Any:
        return self._ask("POST", "state", {"call": method, "args": args})["result"]

    def set(self, **switches: object) -> None:
        self._ask("POST", "state", {"set": switches})

    def fault(self, name: str, **details: object) -> None:
        """For the next order POST, unless `endpoint` says otherwise."""
        self._ask("POST", "fault", {"name": name, **details})

    def now(self) -> datetime:
        return datetime.fromisoformat(self._ask("GET", "state")["now"])


class SimProcess:
    """A fork of this process that serves until `close`, or until its parent is gone."""

    def __init__(
        self,
        ledger: Path,
        masters: Mapping[str, bytes],
        start: datetime,
        kind: type[FyersSim] = FyersSim,
    ) -> None:
        self.ledger = ledger
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._ours.close()
                _serve(theirs, kind, ledger, masters, start)
            finally:
                os._exit(0)
        theirs.close()
        self._lines = self._ours.makefile("r")
        self.door = Door(self._lines.readline().strip())

    def quiet(self) -> None:
        """Return once everything that dead clients have sent is acted on."""
        self.door.now()  # accepted after every connection that was there before
        self._ours.sendall(b"quiet\n")
        if self._lines.readline() != "quiet\n":
            raise AssertionError("the simulator still has connections of dead clients")

    def lines(self) -> list[dict[str, Any]]:
        return read_ledger(self.ledger)

    def close(self) -> None:
        self._lines.close()
        self._ours.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(
    control: socket.socket,
    kind: type[FyersSim],
    ledger: Path,
    masters: Mapping[str, bytes],
    start: datetime,
) -> None:
    sim = kind(ledger=ledger, masters=masters, clock=SimClock(start), rate_limits=False)
    sim.market_open = True
    control.sendall(f"{sim.root_url}\n".encode())
    for _ in control.makefile("r"):
        give_up = time.monotonic() + QUIET_WITHIN_S
        while sim.server._open and time.monotonic() < give_up:
            time.sleep(0.0005)
        control.sendall(b"busy\n" if sim.server._open else b"quiet\n")
