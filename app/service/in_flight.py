"""Which alerts this process is working on: a copy of one of them is told so from memory, and costs next to nothing.

The database decides who is first, among all instances. But until the first one's intent is committed there is nothing
to see there, and 64 copies at once would each ask the broker for a quote, queue for a connection, and wait for the row
that the first one is still writing: the original itself would run out of its time in that crowd.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.alert import Alert
from app.errors import KeyInUse


class InFlight:
    """One per process. It only ever says 409, as the database would a little later; it lets nothing through that the
    database would stop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: dict[tuple[str, str], str] = {}

    @contextmanager
    def only(self, alert: Alert) -> Iterator[None]:
        """For as long as the block lasts a copy of this alert raises KeyInUse. The same key with another body goes on
        to the database, which knows what to say to it.
        """
        place, body = (alert.client, alert.key.digest), alert.key.body_hash
        with self._lock:
            is_first = place not in self._at_work
            if is_first:
                self._at_work[place] = body
            elif self._at_work[place] == body:
                raise KeyInUse("the same alert is being worked on right now", retry_after_s=1)
        try:
            yield
        finally:
            if is_first:
                with self._lock:
                    del self._at_work[place]
