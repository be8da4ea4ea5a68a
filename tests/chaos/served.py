"""Inside gunicorn: die at the next passage of the point that the plan's file names, whichever worker comes first."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos import points
from tests.chaos.points import TRACER, Action, Point


def install(plan: str) -> None:
    path = Path(plan)

    def action(point: Point) -> Action | None:
        try:
            if path.read_text() != place(point):
                return None
            path.rename(f"{path}.{os.getpid()}")  # one worker takes it
        except FileNotFoundError:
            return None
        return "kill"

    points.install()
    TRACER.arm_by(action)


def place(point: Point) -> str:
    """A point without its number: the next passage is meant."""
    return f"{point.phase} {point.kind} {point.name}"
