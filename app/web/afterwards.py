"""Records of 503 answers, written down once the answer has gone: a late 503 is none, and the database, which may be the
reason for it, has had its time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from flask import Response

from app.domain.deadline import Deadline
from app.domain.order import Scope
from app.errors import StoreUnavailable
from app.service.ports import Store
from app.service.records import Refusal

MOST = 1000
"""That wait in this process, as many as the store keeps: the oldest are lost first."""
WITHIN_S = 0.25
"""What writing may take of a thread whose answer has gone. The rest waits for the next answer."""


class Afterwards:
    """One per process, for all its threads. What waits when the process ends is lost."""

    def __init__(self, store: Store, scope: Scope, monotonic: Callable[[], float]) -> None:
        self._store, self._scope, self._monotonic = store, scope, monotonic
        self._waiting: deque[Refusal] = deque(maxlen=MOST)
        self._writing = threading.Lock()

    def add(self, refusal: Refusal) -> None:
        self._waiting.append(refusal)

    def follow(self, response: Response) -> Response:
        """For every answer, a probe's too: whichever comes first after an outage is followed by what is left of it."""
        if self._waiting:
            response.call_on_close(self.write_down)
        return response

    def write_down(self) -> None:
        """Whatever can be written now; one thread at a time, so that a hung database holds no others."""
        if not self._writing.acquire(blocking=False):
            return
        deadline = Deadline(self._monotonic() + WITHIN_S)
        try:
            while self._waiting:
                refusal = self._waiting.popleft()
                try:
                    self._store.record_refusal(self._scope, refusal, deadline)
                except StoreUnavailable:
                    self._waiting.append(refusal)  # at the end: one that is never taken stops no other
                    return
        finally:
            self._writing.release()
