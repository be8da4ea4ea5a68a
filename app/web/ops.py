"""What probes and monitors ask: /healthz, /readyz, /readyz/orders."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, Response, jsonify

from app.domain.contract import ist_date
from app.domain.risk import TradingState
from app.domain.session import previous_trading_day
from app.errors import NoMaster, StoreUnavailable
from app.web.answers import ist
from app.web.ports import Ports


def checks_of(ports: Ports) -> tuple[bool, bool, dict[str, str]]:
    """Three answers: (this instance should get traffic, an entry could be placed now, every check's word)."""
    words: dict[str, str] = {}
    store = ports.store.check()
    words["database"] = store or "ok"
    try:
        age = ports.contracts.age()
        words["index"] = "ok"
        # Only option files: a cash file may be older without harm to a lot or an expiry.
        options = [day for name, day in age.dates.items() if name.startswith(("NSE_FO", "BSE_FO"))]
        wanted = previous_trading_day(ist_date(ports.clock.now()))
        fresh = bool(options) and max(options) >= wanted
        words["master"] = "ok" if fresh else f"older than {wanted}"
    except NoMaster as error:
        words["index"], words["master"] = error.detail, "none"
    words["broker"] = ports.broker.ready() or "ok"
    try:
        desk = ports.desk()
        with ports.store.read() as tx:
            state, reconciled = tx.trading_state(ports.scope), desk.reconciled(tx)
        words["reconciled"] = "ok" if reconciled else "no pass has succeeded since this start"
        words["trading_state"] = "ok" if state is TradingState.ACTIVE else state.value
    except StoreUnavailable:
        words["trading_state"] = "unreadable, so halted"
    traffic = words["database"] == words["index"] == "ok"
    return traffic, all(word == "ok" for word in words.values()), words


def master_of(ports: Ports) -> dict[str, object]:
    """The contract index as a person wants to see it: how old, how much, and each file's own day."""
    age = ports.contracts.age()
    return {
        "built_at": ist(age.built_at),
        "age_seconds": max(0, int((ports.clock.now() - age.built_at).total_seconds())),
        "rows": age.rows,
        "skipped": age.skipped,
        "files": {name: day.isoformat() for name, day in sorted(age.dates.items())},
    }


def blueprint(ports: Ports) -> Blueprint:
    routes = Blueprint("ops", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    def ready(*, for_orders: bool) -> Response:
        traffic, orders, words = checks_of(ports)
        body: dict[str, object] = {
            "ready": traffic,
            "can_place_orders": orders,
            "mode": ports.scope.mode.value,
            "checks": words,
        }
        with suppress(NoMaster):  # said among the checks
            body["master"] = master_of(ports)
        token = ports.login.known_status() if ports.login is not None else None
        if token is not None:
            body["token"] = {"obtained_at": ist(token.obtained_at), "ends_at": ist(token.ends_at)}
        response = jsonify(body)
        response.status_code = 200 if (orders if for_orders else traffic) else 503
        return response

    @routes.get("/readyz")
    def readyz() -> Response:
        return ready(for_orders=False)

    @routes.get("/readyz/orders")
    def readyz_orders() -> Response:
        return ready(for_orders=True)

    return routes
