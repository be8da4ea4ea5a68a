"""Log lines: one JSON object per line on stdout."""

from __future__ import annotations

import logging

import structlog


def configure(level: str) -> None:
    """JSON lines on stdout, from structlog; levels as the standard library names them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        cache_logger_on_first_use=True,
    )


class LogNotifier:
    """Tells a person through the log until channels are configured: a page is an error line."""

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        log = structlog.get_logger("notify")
        (log.error if page else log.warning)(code, detail=message, page=page)
