"""Single values of a body: numbers as they come, and how a value is shown and kept."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from app.service.observe import SECRET, masked

MAX_TEXT = 64
MAX_LOOK = 1024
"""How far into a text a secret is looked for; what is longer is kept nowhere, and shown cut."""
_NUMBER = re.compile(r"\+?[0-9]{1,12}(\.[0-9]{1,8})?", re.ASCII)


def shown(value: object) -> str:
    """A value as an error may show it: short, on one line, and never a living secret typed into the wrong field."""
    text = repr(value) if isinstance(value, str) else str(value)
    head = text[:MAX_LOOK]
    if masked(head) != head:
        return SECRET
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def kept(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same for a value that may be kept, a strategy's name or a reason: what is not secret in it stays."""
    if isinstance(value, str):
        return masked(value) if len(value) <= MAX_LOOK else value
    if isinstance(value, dict):
        return {k: kept(v) for k, v in value.items()}
    return [kept(v) for v in value] if isinstance(value, list) else value


def number(value: object) -> Decimal | None:
    """A finite number from a JSON number or a plain ASCII numeric text, else None. A bool is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip(" ")):
        try:
            return Decimal(value.strip(" "))
        except InvalidOperation:
            return None
    return None
