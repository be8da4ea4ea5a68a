"""The simulator's own HTTP door, `/__sim__/`, for tests whose simulator runs in another process.

GET  /__sim__/ledger   {"orders", "placed", "ops", "counts"}
GET  /__sim__/state    the switches, the positions, the faults in waiting
POST /__sim__/fault    {"endpoint"?, "name", "times"?, "seconds"?, "appear_after"?, "status"?, "body"?, "headers"?}; endpoint is
                       POST /orders/sync unless given, `times` null or missing means 1, "sticky" keeps it; name null clears
POST /__sim__/state    {"set": {switch: value}, "call": method, "args": {...}}; answers {"result": ...}
Answers are 400 with {"error": ...} for what makes no sense. No credentials: it listens on loopback.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.simulator.faults import ORDER_POST, make_fault
from tests.simulator.wire import JsonObject, Reply, Request

if TYPE_CHECKING:
    from tests.fyers_sim import FyersSim

PREFIX = "/__sim__/"
SWITCHES = frozenset(
    [
        "fill_mode",
        "overlay_mode",
        "bracket_mode",
        "order_permission",
        "market_open",
        "enforce_hours",
        "rate_limits",
    ]
)
CALLS = frozenset(
    [
        "fill",
        "cancel",
        "expire",
        "reject",
        "match",
        "set_quote",
        "remove_quote",
        "place_by_hand",
        "close_by_hand",
        "carry_forward",
        "trigger_stop",
        "trigger_target",
        "orders",
        "trades",
        "positions",
        "freeze_book",
        "unfreeze_book",
        "issue_auth_code",
        "expire_tokens",
        "revoke_token",
        "release_hangs",
        "drop_connections",
        "advance",
    ]
)


def answer(sim: FyersSim, request: Request) -> Reply:
    """One request to the door."""
    what = request.path.removeprefix(PREFIX)
    try:
        if request.method == "GET" and what == "ledger":
            ledger = sim.ledger
            return _json(
                orders=ledger.orders(), placed=ledger.placed(), ops=ledger.ops(), counts=ledger.counts
            )
        if request.method == "GET" and what == "state":
            return _json(**_state(sim))
        if request.method == "POST" and what == "fault":
            return _fault(sim, request.json())
        if request.method == "POST" and what == "state":
            return _change(sim, request.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _json(400, error=f"{type(error).__name__}: {error}")
    return _json(
        404, error=f"expected one of {PREFIX}ledger, state, fault, was {request.method} {request.path}"
    )


def _state(sim: FyersSim) -> JsonObject:
    with sim.exchange.lock:
        positions = sim.exchange.position_rows()
    switches = {name: getattr(sim, name) for name in sorted(SWITCHES)}
    return {
        **switches,
        "positions": positions,
        "faults": sim.faults.pending(),
        "now": sim.clock().isoformat(),
    }


def _fault(sim: FyersSim, body: JsonObject) -> Reply:
    endpoint, name, times = body.get("endpoint", ORDER_POST), body["name"], body.get("times") or 1
    if name is None:
        sim.faults.clear(body.get("endpoint"))
        return _json(faults=sim.faults.pending())
    fault = make_fault(
        name,
        seconds=body.get("seconds"),
        appear_after=body.get("appear_after"),
        status=body.get("status", 500),
        body=body.get("body", ""),
        headers=body.get("headers"),
    )
    if times == "sticky":
        sim.faults.hold(endpoint, fault)
    else:
        sim.faults.queue(endpoint, fault, int(times))
    return _json(faults=sim.faults.pending())


def _change(sim: FyersSim, body: JsonObject) -> Reply:
    for name, value in body.get("set", {}).items():
        if name not in SWITCHES:
            raise ValueError(f"expected one of {sorted(SWITCHES)}, was {name!r}")
        setattr(sim, name, value)
    call = body.get("call")
    if call is None:
        return _json(result=None)
    if call not in CALLS:
        raise ValueError(f"expected one of {sorted(CALLS)}, was {call!r}")
    result: Any = getattr(sim, call)(**body.get("args", {}))
    return _json(result=result)


def _json(status: int = 200, **fields: Any) -> Reply:
    return Reply(status, json.dumps(fields, default=str).encode(), answer="admin")
