"""One number against what the design promises. `show` prints a module's rows; `python -m bench` gathers all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

AS_JSON = "--json"
MISSED = 3
"""How a run ends that missed a target. One that breaks ends with Python's own 1."""


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    target: str
    """Empty: only told."""
    met: bool = True

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        return "met" if self.met else "MISSED"


def show(rows: Iterable[Row]) -> int:
    """Each as it comes: as JSON lines for `python -m bench`, else for a person. Returns how the run ends."""
    missed = False
    for row in rows:
        missed |= not row.met
        line = f"{row.what}: {row.measured}" + (f" ({row.target}: {row.verdict})" if row.target else "")
        sys.stdout.write((json.dumps(asdict(row)) if AS_JSON in sys.argv else line) + "\n")
        sys.stdout.flush()
    return MISSED if missed else 0
