"""A new connection, by a deadline.

The driver's own time-out is in whole seconds from two on, for each address that the name has, and holds for no name
server: `localhost` alone may cost it four seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any


class NotMade(Exception):
    """Not in time. What comes later is closed, and nobody has it."""


def made_within(make: Callable[[], Any], within_s: float) -> Any:  # noqa: ANN401 - the driver's connection
    """What `make` makes, in a thread of its own, or its error; or NotMade after so many seconds."""
    made: Future[Any] = Future()
    threading.Thread(target=_make, args=(make, made), name="database connect", daemon=True).start()
    try:
        return made.result(max(0.0, within_s))
    except TimeoutError:
        if made.cancel():
            raise NotMade(f"no connection within {within_s:.1f} s") from None
        return made.result()


def _make(make: Callable[[], Any], made: Future[Any]) -> None:
    try:
        connection = make()
    except Exception as error:  # noqa: BLE001 - told to whoever waits for it
        with suppress(InvalidStateError):
            made.set_exception(error)
        return
    try:
        made.set_result(connection)
    except InvalidStateError:
        connection.close()
