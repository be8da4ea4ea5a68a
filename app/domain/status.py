"""The order states and the legal moves between them (a move that is not here raises)."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    DENIED = "DENIED"
    EXIT_PENDING = "EXIT_PENDING"
    SENDING = "SENDING"
    NOT_SENT = "NOT_SENT"
    IN_DOUBT = "IN_DOUBT"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    NOT_PLACED = "NOT_PLACED"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


S = Status

BORN: frozenset[Status] = frozenset({S.SENDING, S.DENIED, S.EXIT_PENDING})

MOVES: dict[Status, frozenset[Status]] = {
    S.DENIED: frozenset(),
    # An exit that waits for an entry, an exit or a cancel whose outcome is not known yet. It is not a send:
    # it becomes one, or a denial (nothing left to exit), once what it waits for is settled.
    S.EXIT_PENDING: frozenset({S.SENDING, S.DENIED}),
    S.SENDING: frozenset({S.NOT_SENT, S.ACCEPTED, S.REJECTED, S.IN_DOUBT}),
    # A re-send takes the same row, or nobody asks again within 60 s. A re-send may also be denied (the checks
    # run anew) or, for an exit, find that it has to wait. ACCEPTED only against our own proof: see REJECTED.
    S.NOT_SENT: frozenset({S.SENDING, S.DENIED, S.EXIT_PENDING, S.EXPIRED, S.ACCEPTED}),
    S.IN_DOUBT: frozenset({S.ACCEPTED, S.REJECTED, S.NOT_PLACED, S.NEEDS_REVIEW}),
    S.ACCEPTED: frozenset({S.PARTIALLY_FILLED, S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED, S.NEEDS_REVIEW}),
    # The book shows it live after all: our verdict was wrong. Adopted, alarmed, trading state REDUCING.
    S.REJECTED: frozenset({S.ACCEPTED}),
    S.NOT_PLACED: frozenset({S.ACCEPTED}),
    S.NEEDS_REVIEW: frozenset(
        {S.ACCEPTED, S.PARTIALLY_FILLED, S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.NOT_PLACED}
    ),
    # A partial fill may end by the rest being filled, cancelled, expired or rejected at the exchange.
    S.PARTIALLY_FILLED: frozenset({S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED, S.NEEDS_REVIEW}),
    S.FILLED: frozenset(),
    # Exchanges report a fill that crossed our cancel: the book's word wins.
    S.CANCELLED: frozenset({S.PARTIALLY_FILLED, S.FILLED}),
    S.EXPIRED: frozenset({S.PARTIALLY_FILLED, S.FILLED, S.ACCEPTED}),
}

UNSETTLED: frozenset[Status] = frozenset({S.SENDING, S.IN_DOUBT})
"""Sent or perhaps sent, and the answer is not known."""

WORKING: frozenset[Status] = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED})
"""At the broker and, as far as we know, not finished."""


class IllegalMoveError(Exception):
    """A move that the table does not have: an assumption of ours broke."""


def check_move(before: Status, after: Status) -> None:
    """Raise IllegalMoveError unless the table has `before` -> `after`."""
    if after not in MOVES[before]:
        raise IllegalMoveError(f"expected one of {sorted(MOVES[before])} after {before}, was {after}")
