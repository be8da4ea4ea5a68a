"""The settings of the audit: how often it is sealed, and where copies of the seals go."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class AuditSettings(BaseSettings):
    """What was deleted or cut after a seal shows; what was within these seconds before it may not."""

    audit_seal_seconds: float = Field(60, ge=0.2, le=3600)
    audit_gcs_bucket: str = ""
