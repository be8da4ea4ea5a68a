"""The settings of what can be seen of the service: where log lines go, and whether traces go anywhere."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

LEVEL = "^(DEBUG|INFO|WARNING|ERROR)$"
LEVEL_OR_EMPTY = "^(|DEBUG|INFO|WARNING|ERROR)$"


class TelemetrySettings(BaseSettings):
    """An empty level of a destination is LOG_LEVEL."""

    log_level: str = Field("INFO", pattern=LEVEL)
    log_file: Path | None = None
    use_cloud_logging: bool = False
    cloud_log_level: str = Field("", pattern=LEVEL_OR_EMPTY)
    file_log_level: str = Field("", pattern=LEVEL_OR_EMPTY)
    google_cloud_project: str = ""
    otel_exporter_otlp_endpoint: str = Field("", pattern=r"^($|https?://)")

    @property
    def stdout_level(self) -> int:
        """Google's collector reads stdout, so its level is stdout's there."""
        cloud = self.cloud_log_level if self.use_cloud_logging else ""
        return logging.getLevelNamesMapping()[cloud or self.log_level]

    @property
    def file_level(self) -> int:
        return logging.getLevelNamesMapping()[self.file_log_level or self.log_level]


def figures_dir() -> Path | None:
    """Where the workers of this instance keep the figures that are summed; None: there is one process. Set by
    gunicorn.conf.py for prometheus-client, which reads it by itself: nothing that an operator sets.
    """
    path = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(path) if path and Path(path).is_dir() else None
