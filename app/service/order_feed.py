"""What may say, sooner than the timer asks, that an order has changed at the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class OrderFeed(Protocol):
    """A hint and nothing else: whoever is woken reads the broker's books, and believes those alone."""

    def start(self, wake: Callable[[], None]) -> None:
        """Listen from here on, on a thread of its own; nothing where it does already. Never raises.

        `wake` is called after every connect and at each message that may be about an order, from that thread.
        """

    def stop(self) -> None:
        """Listen no more. Returns at once; the thread ends soon after."""

    def problem(self) -> str | None:
        """Why nothing is heard, in words; None while it listens, and where it is not meant to."""
