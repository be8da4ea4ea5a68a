"""Any notifier, with what it says counted by its code."""

from __future__ import annotations

from app.service.ports import Notifier
from app.telemetry.metrics import Metrics


class CountingNotifier:
    def __init__(self, inner: Notifier, metrics: Metrics) -> None:
        self.inner, self._metrics = inner, metrics

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        self._metrics.notified(code, page=page)
        self.inner.notify(code, message, page=page)
