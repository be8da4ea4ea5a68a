"""The settings of the door: how many requests a client may send, and which web pages may ask."""

from __future__ import annotations

from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from app.service.config_lists import listed


class DoorSettings(BaseSettings):
    """`rate_limit_webhook`: alerts of one client, several limits with a semicolon between them."""

    rate_limit_webhook: str = Field("60 per minute", max_length=200)
    cors_origins: str = ""

    @field_validator("rate_limit_webhook")
    @classmethod
    def _limits(cls, value: str) -> str:
        if not value.strip():
            return "60 per minute"
        try:
            limits = parse_many(value)
        except ValueError:
            raise ValueError("expected limits like `60 per minute; 5 per second`") from None
        if any(limit.amount < 1 or limit.get_expiry() < 1 for limit in limits):
            raise ValueError("expected at least 1 in at least 1 second")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in listed(value):
            parts = urlsplit(origin)
            bare = f"{parts.scheme}://{parts.netloc}" == origin and parts.scheme in ("http", "https")
            if origin != "*" and not (bare and parts.hostname and "@" not in origin):
                raise ValueError("expected origins like https://desk.example, comma-separated, or *")
        return value

    @property
    def allowed_origins(self) -> frozenset[str]:
        """As a browser writes them: in lower case."""
        return frozenset(listed(self.cors_origins.lower()))
