"""The wire body of a heartbeat, and how the webhook tells it from an alert."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from app.errors import FieldError, InvalidAlert
from app.service.heartbeat import LONGEST_S, SHORTEST_S, Beat
from app.web.schemas import AlertBody, validated
from app.web.values import MAX_TEXT, number, shown

HEARTBEAT = "HEARTBEAT"


class BeatBody(BaseModel):
    """A strategy says that it lives: never an order."""

    model_config = ConfigDict(extra="ignore", title="Heartbeat")

    token: str | None = Field(None, description="the client's token")
    action: Literal["HEARTBEAT"]
    strategy: str = Field("", max_length=MAX_TEXT)
    every_seconds: int = Field(description="how often it comes; missing after half as long again, and 30 s")

    @field_validator("action", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("every_seconds", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        found = number(value)
        if found is None or found != found.to_integral_value() or not SHORTEST_S <= found <= LONGEST_S:
            raise ValueError(f"expected whole seconds from {SHORTEST_S} to {LONGEST_S}, was {shown(value)}")
        return int(found)


class WebhookBody(RootModel[AlertBody | BeatBody]):
    """What the webhook takes; `action` tells which it is."""


def is_beat(body: dict[str, Any]) -> bool:
    """Whether a body is a heartbeat's: its action says so."""
    actions = [v for k, v in body.items() if k.lower() == "action"]
    return len(actions) == 1 and isinstance(actions[0], str) and actions[0].strip().upper() == HEARTBEAT


def to_beat(body: dict[str, Any], client: str) -> Beat:
    """Raises InvalidAlert with every wrong field."""
    fields: dict[str, Any] = {}
    for key, value in body.items():
        if key.lower() in fields:
            raise InvalidAlert((FieldError(key.lower(), "the field stands twice, in two spellings"),))
        fields[key.lower()] = value
    found = validated(BeatBody, fields)
    return Beat(client, found.strategy, found.every_seconds)
