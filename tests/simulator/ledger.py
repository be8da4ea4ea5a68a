"""What the simulator really did: one JSON line per order or operation, on disk before any byte of the answer.

A line of kind `order` stands for one POST /orders/sync received; `order_id` is null unless an order was
created. Kinds `cancel`, `modify`, `exit_position`, `position_legs` and `logout` are the other writes. Reads
are counted in memory and, with `log_reads`, get lines of kind `read`. Only the app id of the Authorization
header is kept, never the token.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]


class Ledger:
    """Append-only; safe for threads. An existing file is read first, so that a restarted simulator goes on in it."""

    def __init__(self, path: Path, *, fsync: bool = True, log_reads: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._log_reads = log_reads
        self._changed = threading.Condition()
        self._lines: list[JsonObject] = read_ledger(path) if path.exists() else []
        self._reads: Counter[str] = Counter()
        self._file = path.open("ab")

    def record(self, kind: str, **fields: object) -> JsonObject:
        """Append a line and return once it is on disk."""
        with self._changed:
            line: JsonObject = {"n": len(self._lines) + 1, "kind": kind, **fields}
            self._file.write(json.dumps(line, default=str, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            self._lines.append(line)
            self._changed.notify_all()
        if self._fsync:
            os.fsync(self._file.fileno())
        return line

    def count(self, endpoint: str) -> None:
        """Count one request to an endpoint."""
        with self._changed:
            self._reads[endpoint] += 1
            self._changed.notify_all()

    def record_read(self, endpoint: str, **fields: object) -> None:
        """A line for a read, if those are wanted."""
        if self._log_reads:
            self.record("read", endpoint=endpoint, **fields)

    @property
    def counts(self) -> dict[str, int]:
        """Requests per endpoint, whatever their answer."""
        with self._changed:
            return dict(self._reads)

    def lines(self) -> list[JsonObject]:
        """Every line, oldest first."""
        with self._changed:
            return list(self._lines)

    def orders(self) -> list[JsonObject]:
        """One line per order POST received."""
        return [line for line in self.lines() if line["kind"] == "order"]

    def placed(self) -> list[JsonObject]:
        """The order POSTs that created an order, whatever was answered."""
        return [line for line in self.orders() if line["order_id"] is not None]

    def ops(self, kind: str | None = None) -> list[JsonObject]:
        """The other writes, all or of one kind."""
        wanted = [line for line in self.lines() if line["kind"] not in ("order", "read")]
        return [line for line in wanted if kind is None or line["kind"] == kind]

    def wait_for(self, condition: Callable[[Ledger], bool], timeout_s: float = 5.0) -> bool:
        """Whether the condition became true in time; looked at after every line and every count."""
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            with self._changed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.05))
        return True

    def close(self) -> None:
        """Close the file; the lines stay readable in memory."""
        with self._changed:
            self._file.close()


def read_ledger(path: Path) -> list[JsonObject]:
    """The lines of a ledger file; a last line cut by a crash is left out."""
    lines: list[JsonObject] = []
    for raw in path.read_bytes().split(b"\n"):
        if raw.strip():
            try:
                lines.append(json.loads(raw))
            except ValueError:
                continue
    return lines
