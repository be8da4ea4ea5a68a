"""What probes and monitors ask: /healthz, /readyz, /readyz/orders."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, Response, jsonify, request

from app.errors import NoMaster, NotAllowed, StoreUnavailable
from app.service.health import OK, SLOW, Parts, usual_checks
from app.web.answers import ist
from app.web.middleware.address import check_address
from app.web.middleware.authentication import bearer_token
from app.web.ports import Ports


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


def is_admin(ports: Ports) -> bool:
    """A wrong token is refused and counted like everywhere; a known one that is not the operator's sees less."""
    given = bearer_token(request)
    if given is None:
        return False
    try:
        caller = ports.callers.find(given)
    except StoreUnavailable:
        return False  # the answer says so itself
    if caller is None:
        raise ports.callers.refused(request)
    try:
        check_address(ports.callers.address(request), caller.networks)
    except NotAllowed:
        return False  # a probe is answered all the same
    return caller.is_admin


def blueprint(ports: Ports) -> Blueprint:
    routes = Blueprint("ops", __name__)
    has_token = ports.settings.has_real_market
    parts = Parts(
        ports.clock,
        ports.store,
        ports.broker,
        ports.contracts,
        ports.scope,
        ports.tokens if has_token else None,
        ports.desk,
        ports.settings.options_files,
    )
    checks = usual_checks(parts, ports.dependencies)

    @routes.get("/healthz")
    def healthz() -> Response:
        """Asks nothing: whatever is down outside, a restart of this process would not mend it."""
        return jsonify({"status": "ok"})

    def ready(*, for_orders: bool) -> Response:
        in_full = is_admin(ports)
        health = checks(for_orders=for_orders)
        plain = {name: word if word in (OK, SLOW) else "not ok" for name, word in health.words.items()}
        body: dict[str, object] = {
            "ready": health.traffic,
            "can_place_orders": health.orders,
            "mode": ports.scope.mode.value,
            "checks": health.words if in_full else plain,
        }
        if in_full:
            with suppress(NoMaster):  # said among the checks
                body["master"] = master_of(ports)
            token = ports.login.known_status() if ports.login is not None else None
            if token is not None:
                body["token"] = {"obtained_at": ist(token.obtained_at), "ends_at": ist(token.ends_at)}
        response = jsonify(body)
        response.status_code = 200 if (health.orders if for_orders else health.traffic) else 503
        return response

    @routes.get("/readyz")
    def readyz() -> Response:
        return ready(for_orders=False)

    @routes.get("/readyz/orders")
    def readyz_orders() -> Response:
        return ready(for_orders=True)

    return routes
