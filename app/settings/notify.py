"""The settings of notifications: where they go, and what of them."""

from __future__ import annotations

import hashlib
import json
import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.service.config_lists import listed
from app.service.notices import CODES, Channel

_WORDS = CODES | {f"-{code}" for code in CODES} | {"all", "pages", "clients"}


class NotifySettings(BaseSettings):
    """`notify_preferences`: by a channel's number in NOTIFY_URLS (from 1), or `*` for the others: `all`, `pages`,
    codes of notices; `-code` takes one out; `clients` alone leaves a channel to those who choose it for their orders.
    """

    notify_urls: SecretStr = SecretStr("")
    notify_preferences: Annotated[dict[str, list[str]], NoDecode] = Field(default_factory=dict)
    notify_per_minute: int = Field(20, ge=4, le=600)

    @field_validator("notify_urls")
    @classmethod
    def _urls(cls, value: SecretStr) -> SecretStr:
        for number, url in enumerate(_urls_of(value), 1):
            if not re.match(r"[a-zA-Z][a-zA-Z0-9+]*://.", url):
                raise ValueError(f"expected apprise addresses like tgram://…, number {number} is none")
        return value

    @field_validator("notify_preferences", mode="before")
    @classmethod
    def _preferences(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        example = '{"1": "pages", "*": ["all", "-order_accepted"]}'
        if isinstance(value, str):
            try:
                value = json.loads(value or "{}")
            except ValueError:
                raise ValueError(f"expected a JSON object like {example}") from None
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object like {example}")  # noqa: TRY004 - pydantic wants this one
        found = {}
        for name, given in value.items():
            words = [given] if isinstance(given, str) else given
            is_name = name == "*" or (name.isascii() and name.isdigit() and int(name) > 0)
            if not is_name or not isinstance(words, list):
                raise ValueError(f"expected a channel's number or *, with words like {example}")
            for word in words:
                if not isinstance(word, str) or word not in _WORDS:
                    raise ValueError(_unknown(word))
            found[name] = words
        return found

    @property
    def channels(self) -> tuple[tuple[Channel, str], ...]:
        """Each channel and its address. The address is a secret: its name here is not made of it readably."""
        made = []
        for number, url in enumerate(_urls_of(self.notify_urls), 1):
            words = self.notify_preferences.get(str(number), self.notify_preferences.get("*", ["all"]))
            ident = hashlib.sha256(url.encode()).hexdigest()[:16]
            name = f"{number} {url.partition('://')[0].lower()}"
            made.append((Channel(ident, name, tuple(words), self.notify_per_minute), url))
        return tuple(made)


def _unknown(word: object) -> str:
    near = get_close_matches(str(word), _WORDS, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"expected all, pages, clients or a notice's code, was {str(word)[:60]!r}{meant}"


def _urls_of(value: SecretStr) -> tuple[str, ...]:
    """Between addresses stands a comma; one inside an address is written %2C."""
    return listed(value.get_secret_value())
