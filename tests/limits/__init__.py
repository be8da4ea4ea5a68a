"""What the guard rails promise, at full size: `make limits`, or `LIMITS=all` for one file of it.

Without it each is a tenth, or what an ordinary run of the suite has time for.
"""

from __future__ import annotations

import os

IS_FULL = os.environ.get("LIMITS") == "all"


def size(full: int, usual: int | None = None) -> int:
    """How many there are in this run."""
    return full if IS_FULL else (full // 10 if usual is None else usual)
