"""The kinds of audit events. Grammar: `subject:action`."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    ORDER_DENIED = "order:denied"
    ORDER_SENDING = "order:sending"
    ORDER_NOT_SENT = "order:not_sent"
    ORDER_ACCEPTED = "order:accepted"
    ORDER_REJECTED = "order:rejected"
    ORDER_IN_DOUBT = "order:in_doubt"
    ORDER_NOT_PLACED = "order:not_placed"
    ORDER_NEEDS_REVIEW = "order:needs_review"
    ORDER_FILLED = "order:filled"
    ORDER_PARTIALLY_FILLED = "order:partially_filled"
    ORDER_CANCELLED = "order:cancelled"
    ORDER_EXPIRED = "order:expired"
    ORDER_SENT_LATE = "order:sent_late"
    EXIT_PENDING = "exit:pending"
    LEG_CANCELLED = "leg:cancelled"
    LEG_CHANGING = "leg:changing"
    LEG_RESTORED = "leg:restored"
    LEG_UNPROTECTED = "leg:unprotected"
    ENTRY_CANCEL = "entry:cancel"
    EXIT_UNFILLED = "exit:unfilled"
    EXIT_REPLACED = "exit:replaced"
    ORDER_ADOPTED = "order:adopted"
    ORDER_RESOLVED = "order:resolved"
    PROTECTION_SEEN = "protection:seen"
    PROTECTION_MISSING = "protection:missing"
