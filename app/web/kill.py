"""The kill switch by API: halt, and cancel or flatten. Behind the admin token."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ConfigDict

from app.service.by_hand import Done
from app.service.flatten import KillSwitch, typed_out
from app.web import answers
from app.web.control import WHY, by_api, object_of
from app.web.ports import Ports
from app.web.schemas import validated


class Kill(StrEnum):
    CANCEL = "cancel"
    FLATTEN = "flatten"


class KillBody(BaseModel):
    """What to do beside halting. `all_positions`: the words ALL POSITIONS, to close a hand's positions as well."""

    model_config = ConfigDict(extra="forbid")
    do: Kill
    reason: str = WHY
    all_positions: str = ""


def done_body(done: Done) -> dict[str, Any]:
    return {
        "state": "HALTED",
        "cancelled": done.cancelled,
        "exits": [answers.order_body(order) for order in done.exits],
        "closed_by_hand": done.closed_by_hand,
        "problems": done.problems,
    }


def blueprint(ports: Ports) -> Blueprint:
    routes = Blueprint("kill", __name__)

    @routes.post("/api/v1/kill")
    def kill() -> Response:
        """200 also with problems: what could be done is done, and the problems say what a person has to look at."""
        by = by_api(ports.callers.admin(request))
        body = validated(KillBody, object_of(ports))
        flatten = body.do is Kill.FLATTEN
        everything = typed_out(body.all_positions, flatten=flatten)
        switch = KillSwitch(ports.desk())
        if flatten:
            done = switch.flatten(by, body.reason, all_positions=everything)
        else:
            done = switch.cancel(by, body.reason)
        return jsonify(done_body(done))

    return routes
