"""The names that the suite has cases for. A run that meets another one fails, and so does a name nobody passes."""

from __future__ import annotations

KNOWN: dict[str, frozenset[str]] = {
    "commit": frozenset(
        [
            "exits:_commit",
            "exits:_lease",
            "exits:_read",
            "exits:is_against_own",
            "legs:_noted",
            "pending:_job",
            "pending:run_pending",
            "place_order:PlaceOrder._begin",
            "place_order:PlaceOrder._commit",
            "reconcile:Reconcile.__call__",
            "reconcile:Reconcile._by_broker",
            "reconcile:Reconcile._lower",
            "reconcile:Reconcile._must_read",
            "reconcile:Reconcile._without_broker",
            "reconcile:Reconcile._write",
            "send:last_check",
            "send:record",
            "which:_own_rows",
            "wiring:FirstUse.__call__",
        ]
    ),
    "connect": frozenset(
        [
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
        ]
    ),
    "read": frozenset(
        [
            "order_book < exits:_read",
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
            "positions < position:read_on",
            "positions < reconcile:Reconcile.__call__",
            "quotes < place_order:quote_of",
            "set_protection < legs:Legs.remove",
        ]
    ),
    "write": frozenset(
        [
            "order_book < exits:_read",
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
            "positions < position:read_on",
            "positions < reconcile:Reconcile.__call__",
            "quotes < place_order:quote_of",
            "set_protection < legs:Legs.remove",
        ]
    ),
}
