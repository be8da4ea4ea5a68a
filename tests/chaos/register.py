"""The names that the suite has cases for. A run that meets another one fails, and so does a name nobody passes."""

from __future__ import annotations

KNOWN: dict[str, frozenset[str]] = {
    "commit": frozenset(
        [
            "exits:_commit",
            "exits:_lease",
            "in_the_way:clear_the_way",
            "in_the_way:_cancel",
            "exits:_nothing",
            "intent:deny",
            "legs:_has_waited",
            "legs:_noted",
            "legs:_wait_for_legs",
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
            "send:committed_after_all",
            "narrow:narrow_stops",
            "position:if_free",
            "relegs:_restore",
            "relegs:restore_legs",
            "send:last_check",
            "send:record",
            "which:choose",
            "wiring:FirstUse.__call__",
        ]
    ),
    "connect": frozenset(
        [
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
            "quotes < place_order:quote_of",
            "set_protection < legs:Legs.remove",
            "set_protection < legs:_restore",
        ]
    ),
    "read": frozenset(
        [
            "market_open < market:MarketHours.is_open",
            "cancel < in_the_way:_cancel",
            "order_book < in_the_way:clear_the_way",
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
            "positions < legs:Legs._changed",
            "positions < reconcile:Reconcile._by_broker",
            "set_protection < relegs:_restore",
            "positions < position:read_on",
            "positions < reconcile:Reconcile.__call__",
            "quotes < place_order:quote_of",
            "set_protection < legs:Legs.remove",
            "set_protection < legs:_restore",
        ]
    ),
    "write": frozenset(
        [
            "market_open < market:MarketHours.is_open",
            "cancel < in_the_way:_cancel",
            "order_book < in_the_way:clear_the_way",
            "order_book < reconcile:Reconcile.__call__",
            "place < legs:send_without_legs",
            "place < place_order:PlaceOrder._enter",
            "positions < legs:Legs._changed",
            "positions < reconcile:Reconcile._by_broker",
            "set_protection < relegs:_restore",
            "positions < position:read_on",
            "positions < reconcile:Reconcile.__call__",
            "quotes < place_order:quote_of",
            "set_protection < legs:Legs.remove",
            "set_protection < legs:_restore",
        ]
    ),
}

SOMETIMES = frozenset(
    {
        ("commit", "send:Slot.still_good"),
        ("commit", "config:Config._look"),
        ("commit", "notify:OutboxNotifier._written"),
    }
)
"""Passed only when a send was slow, a second has gone by, or a notice's own thread was quick: known, and not missed."""

READS = "reads only, or writes what no order depends on"
BY_HAND = "a person's command, between alerts: it sends nothing"
BY_HAND_SENDS = "a person's command, whose answer that person reads; its exits are those that have cases"
TIMER = "takes or checks a lease around a pass, whose own transactions are here by name"
BESIDE = "takes two entries of one contract and side, which the judge cannot tell apart; the state machine kills in it"
PAPER = "the paper exchange's own book: no broker's ledger could judge it"
REPLACES = (
    "takes two exits of one contract, which the judge cannot tell apart; it cancels nothing before its end"
)
NOT_MET: dict[str, str] = {
    "in_the_way:_to_replace": REPLACES,
    "broker:PaperExchanger._watched": PAPER,
    "broker:PaperExchanger._look": PAPER,
    "broker:PaperExchanger._change": PAPER,
    "orders:_found": READS,
    "slo:report_of": READS,
    "orders:_state.show": READS,
    "orders:_strangers.strangers": READS,
    "check:CheckAlert.__call__": READS,
    "check:CheckAlert._entry": READS,
    "control:Control.set_state": BY_HAND,
    "control:Control.in_doubt": READS,
    "control:Control.resolve": BY_HAND,
    "control:blueprint.state": READS,
    "doubts:take_back_late": "after a cancel of a late entry: see the stopped processes",
    "narrow:_record": BESIDE,
    "narrow:_look_again": BESIDE,
    "flatten:KillSwitch._cancel": BY_HAND_SENDS,
    "flatten:KillSwitch._end_waiting": BY_HAND,
    "flatten:KillSwitch._held": BY_HAND_SENDS,
    "by_hand:_nothing_in": READS,
    "by_hand:_only_one": BY_HAND_SENDS,
    "preflight:_database": READS,
    "preflight:_trading_state": READS,
    "fyers_login:LoginPages.use_once": BY_HAND,
    "run:purge": READS,
    "run:Scheduler.first_pass": TIMER,
    "run:Scheduler.stop": TIMER,
    "order_updates:OrderUpdates._look_after_lease": TIMER,
    "order_updates:OrderUpdates._pass": TIMER,
    "order_updates:OrderUpdates.stop": TIMER,
    "run:Scheduler._run": TIMER,
    "run:kept": TIMER,
    "run:kept.renew": TIMER,
    "run:run_job": TIMER,
    "daily:day_summary": READS,
    "daily:overnight": READS,
    "health:database": READS,
    "health:_unwritten": READS,
    "loss:unwatched": READS,
    "orders:_orders.one": READS,
    "urgent:urgency_of": READS,
    "send:_take_back": "after a cancel of a late entry: see the stopped processes",
}
"""Transactions that no scenario passes, and why that is right. Everything else in the source must be in `KNOWN`."""
