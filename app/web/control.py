"""The operator's API: trading state, verdicts, strangers, jobs. All behind the admin token."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NotFound
from app.service.control import REASON_LENGTH, Control, Resolution, StateSet
from app.service.records import StateChange, Stranger
from app.web import answers
from app.web.middleware.authentication import Caller
from app.web.middleware.scheduler import SchedulerTokens, admin_or_scheduler
from app.web.middleware.size import bounded_body
from app.web.parse import parse_object
from app.web.ports import Ports
from app.web.schemas import validated

RunJob = Callable[[str, bool], str]
"""By name, and whether it is a timer that asks: a day's job is run once for those, and as often as a person says."""
"""One run of a job by its name. Raises KeyError for a name that is none."""
HISTORY = 50
"""Changes of the trading state in an answer, newest first."""
WHY = Field(min_length=REASON_LENGTH[0], max_length=REASON_LENGTH[1])


class StateBody(BaseModel):
    """Which state, and why."""

    model_config = ConfigDict(extra="forbid")
    state: TradingState
    reason: str = WHY


class ResolveBody(BaseModel):
    """A person's verdict on an order that nothing could prove."""

    model_config = ConfigDict(extra="forbid")
    status: Status
    reason: str = WHY
    filled: int | None = Field(None, ge=0, strict=True)
    price: Decimal | None = Field(None, gt=0, max_digits=14, decimal_places=4)


def state_body(change: StateChange) -> dict[str, Any]:
    return {
        "state": change.state.value,
        "by": change.by,
        "reason": change.reason,
        "at": answers.ist(change.at),
    }


def set_body(done: StateSet) -> dict[str, Any]:
    return {
        **state_body(done.now),
        "changed": done.changed,
        "acknowledged": [stranger_body(s) for s in done.acknowledged],
    }


def stranger_body(stranger: Stranger) -> dict[str, Any]:
    return {
        "broker_order_id": stranger.broker_order_id,
        "symbol": stranger.ticker,
        "side": stranger.side.value,
        "quantity": stranger.quantity,
        "product": stranger.product,
        "tag": stranger.tag,
        "placed_at": answers.ist(stranger.placed_at),
        "acknowledged_by": stranger.acknowledged_by,
    }


def blueprint(ports: Ports, run_job: RunJob, scheduler: SchedulerTokens) -> Blueprint:
    routes = Blueprint("control", __name__)
    callers = ports.callers

    @routes.get("/api/v1/state")
    def state() -> Response:
        callers.admin(request)
        with ports.store.read() as tx:
            now, history = tx.state_change(ports.scope), tx.state_history(ports.scope, HISTORY)
            strangers = tx.strangers(ports.scope, acknowledged=False)
        return jsonify(
            {
                **state_body(now),
                "history": [state_body(c) for c in history],
                "strangers": [stranger_body(s) for s in strangers],
            }
        )

    @routes.post("/api/v1/state")
    def set_state() -> Response:
        by = by_api(callers.admin(request))
        body = validated(StateBody, object_of(ports))
        return jsonify(set_body(Control(ports.desk()).set_state(body.state, by, body.reason)))

    @routes.post("/api/v1/orders/<order_id>/resolve")
    def resolve(order_id: str) -> Response:
        by = by_api(callers.admin(request))
        body = validated(ResolveBody, object_of(ports))
        verdict = Resolution(body.status, by, body.reason, body.filled, body.price)
        return jsonify(answers.order_body(Control(ports.desk()).resolve(order_id, verdict)))

    @routes.post("/internal/jobs/<name>")
    def job(name: str) -> Response:
        is_timer = admin_or_scheduler(request, callers, scheduler)
        try:
            said = run_job(name, is_timer)
        except KeyError:
            raise NotFound("there is no such job") from None
        return jsonify({"job": name, "result": said})

    return routes


def by_api(caller: Caller) -> str:
    """Who it was, for the record."""
    return f"api:{caller.client}"


def object_of(ports: Ports) -> dict[str, Any]:
    return parse_object(bounded_body(request, ports.settings.max_content_length))
