"""The login desk's fixtures: a simulated broker at a standing clock, and services on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.fyers_sim import FyersSim, SimClock
from tests.unit.login_desk import MORNING, LoginDeskOfTests, NewDesk


@pytest.fixture
def login_sim() -> Iterator[FyersSim]:
    with FyersSim(clock=SimClock(MORNING, running=False), rate_limits=False) as running:
        yield running


@pytest.fixture
def new_desk(tmp_path: Path, login_sim: FyersSim) -> Iterator[NewDesk]:
    """Makes a service with the given settings; its connections are closed at the end."""
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(closing(LoginDeskOfTests(tmp_path, login_sim, **more)))
