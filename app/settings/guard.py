"""The guard's settings: the breaker, the budget of calls to the broker, the Redis that instances share them by, and the
feed that says when a call is worth making.
"""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from app.settings import addresses

FYERS_LIMITS = {
    "fyers_orders_per_second": 10,
    "fyers_calls_per_second": 10,
    "fyers_calls_per_minute": 200,
    "fyers_calls_per_day": 100_000,
}
"""What Fyers allows an app (fyers-api.md 3). The fourth minute above blocks the account for the day."""


class GuardSettings(BaseSettings):
    """`expected_processes` counts all worker processes of all instances: each has its share when Redis is away."""

    redis_url: str = ""
    expected_processes: int = Field(1, ge=1, le=100)
    breaker_fail_max: int = Field(5, ge=1)
    breaker_reset_seconds: float = Field(5, gt=0)
    fyers_orders_per_second: int = Field(8, ge=1)
    fyers_calls_per_second: int = Field(10, ge=1)
    fyers_calls_per_minute: int = Field(200, ge=1)
    fyers_calls_per_day: int = Field(100_000, ge=1)
    fyers_order_socket_url: str = ""

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        return addresses.redis(value) if value else value

    @field_validator("fyers_order_socket_url")
    @classmethod
    def _sealed(cls, value: str) -> str:
        """The access token goes there."""
        return addresses.sealed(value, "wss") if value else value

    def above_fyers_limits(self) -> list[str]:
        """What only a simulator may be given, in words."""
        return [
            f"{name.upper()}: expected at most {most}, was {getattr(self, name)}"
            for name, most in FYERS_LIMITS.items()
            if getattr(self, name) > most
        ]
