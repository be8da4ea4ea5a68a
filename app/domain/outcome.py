"""What can come of one call that changes something at the broker.

Accepted  the broker gave an id; not a fill
Refused   the broker provably said no
NotSent   provably no byte of it left us
Unknown   everything else: sent, or perhaps sent, and nobody knows yet
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    broker_order_id: str
    message: str = ""
    sent_late: bool = False
    """The write ended after the deadline: the process was paused between the last check and the write."""


@dataclass(frozen=True, slots=True)
class Refused:
    code: str
    message: str
    retry_after_s: int | None = None
    """The wait that the broker asked for with a refusal by its rate limit."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Said only on proof: the transport's byte count was zero, or a check of ours stopped it before the write."""

    code: str
    message: str
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    message: str
    sent_late: bool = False
    rate_limited: bool = False
    """The answer was HTTP 429, whatever its body: no proof about this order, but the broker's word to wait."""
    retry_after_s: int | None = None
    """The wait that it asked for then."""


Outcome = Accepted | Refused | NotSent | Unknown
