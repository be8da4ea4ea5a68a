"""Why no order could be placed right now, with the code that an answer carries."""

from __future__ import annotations

from typing import Self

POLLS_STOPPED = "broker_polls_stopped"
"""The code of a broker that nobody may ask but for an exit: one call too many would block the account for the day."""


class Unready(str):
    """A reason of `Broker.ready` with a stable code; a plain text has the code `broker_not_ready`."""

    __slots__ = ("code",)
    code: str

    def __new__(cls, reason: str, code: str) -> Self:
        made = super().__new__(cls, reason)
        made.code = code
        return made


def code_of(reason: str) -> str:
    return reason.code if isinstance(reason, Unready) else "broker_not_ready"
