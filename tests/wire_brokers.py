"""Brokers that go wrong in ways that a wire cannot be made to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.brokers.fyers.broker import FyersBroker
from app.domain.deadline import Deadline
from app.domain.outcome import NotSent


class Crash(BaseException):
    """The process dies here: nobody handles it."""


class DyingBroker:
    """The process dies once the answer to an order is there, or its absence is."""

    name = "dying"

    def __init__(self, broker: FyersBroker) -> None:
        self._broker = broker

    def ready(self) -> str | None:
        return None

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Any]:
        with self._broker.exchange(deadline) as exchanger:
            yield _Dying(exchanger)


class _Dying:
    def __init__(self, exchanger: Any) -> None:
        self._exchanger = exchanger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchanger, name)

    def place(self, *arguments: Any, **more: Any) -> None:
        self._exchanger.place(*arguments, **more)
        raise Crash


class UnreachedBroker:
    """Reads answer; an order finds that its connection does not come to stand, and no byte leaves."""

    name = "unreached"

    def __init__(self, broker: FyersBroker) -> None:
        self._broker = broker

    def ready(self) -> str | None:
        return None

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Any]:
        with self._broker.exchange(deadline) as exchanger:
            yield _Unreached(exchanger)


class _Unreached:
    def __init__(self, exchanger: Any) -> None:
        self._exchanger = exchanger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchanger, name)

    def place(self, *_: Any, **__: Any) -> NotSent:
        return NotSent("broker_unreachable", "nothing was sent: the connection was refused")
