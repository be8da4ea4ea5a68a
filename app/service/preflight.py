"""What a look before the market opens came to: one finding for each condition, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.order import Mode


class Light(StrEnum):
    """OK · NOTE: worth knowing, orders go out all the same · BAD: no order would go out · SKIPPED: not looked at."""

    OK = "ok"
    NOTE = "note"
    BAD = "not ready"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition. `said` is what was found, `mend` what to do about it."""

    name: str
    light: Light
    said: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Preflight:
    mode: Mode
    at: datetime
    findings: tuple[Finding, ...]
    waits_for_session: bool = False
    """The exchange does not trade now, and orders go out only while it does."""

    @property
    def bad(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.light is Light.BAD)

    @property
    def is_ready(self) -> bool:
        return not self.bad
