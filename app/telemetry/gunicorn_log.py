"""gunicorn's own lines take the way of all others, in its parent process too."""

from __future__ import annotations

from typing import Any, ClassVar

from gunicorn.glogging import Logger

from app.settings.telemetry import TelemetrySettings
from app.telemetry.logging import configure


class JsonLogger(Logger):  # type: ignore[misc]
    """`settings` is set by gunicorn.conf.py, which has read them."""

    settings: ClassVar[TelemetrySettings | None] = None

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's own
        super().setup(cfg)
        if self.settings is not None:
            configure(self.settings)
