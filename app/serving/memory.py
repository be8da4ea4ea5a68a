"""How a worker's garbage is collected once everything that stays has been made."""

from __future__ import annotations

import gc

NEW_OBJECTS = 10_000
"""Between two looks at the young ones; an alert makes some thousands, and Python's own 700 looks at its live ones over and over."""


def settle() -> None:
    """What was made so far stays: no collection walks it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
