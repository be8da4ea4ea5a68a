"""Requests to the configuration's, the experiments' and the preferences' routes, for test_openapi.py."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse

from app.service.experiments import Trials
from tests.builders import an_order
from tests.unit.openapi_asks import Asked, got, narrow, posted, prepared, tired
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk

CONFIG, HISTORY, ROLLBACK = "/api/v1/config", "/api/v1/config/history", "/api/v1/config/rollback"
EXPERIMENTS, ONE = "/api/v1/experiments", "/api/v1/experiments/{name}"
STOPS, REPORT, PREFERENCES = f"{EXPERIMENTS}/stops", f"{ONE}/report", "/api/v1/preferences"
LESS: dict[str, Any] = {
    "settings": {"risk_max_open_lots": 5, "SL_PERCENT": None, "QTY_CAPS": {"NIFTY": 1}},
    "flags": {"entries": {"percent": 50, "on": ["orb"]}},
    "reason": "a calm day",
}
TRY = {"variants": [{"name": "usual"}, {"name": "wide", "sl_percent": 30, "weight": 2}], "reason": "to see"}
BACK = {"version": 0, "reason": "as it was"}
BIG = b" " * 70_000


def put(path: str, url: str, status: int, body: Any, token: str = ADMIN, prepare: Any = None) -> Asked:
    def ask(desk: WebDesk) -> TestResponse:
        return desk.api("put", url, token, body)

    return "put", path, status, ask if prepare is None else prepared(ask, prepare)


def down(desk: WebDesk) -> None:
    desk.configs.down = True


def less(desk: WebDesk) -> None:
    assert desk.api("put", CONFIG, ADMIN, LESS).status_code == 200


def tried(desk: WebDesk) -> None:
    assert desk.api("put", STOPS, ADMIN, TRY).status_code == 200
    desk.configs.found = Trials((an_order(1, variant="stops/wide"),), (), ())


def quicker(desk: WebDesk) -> None:
    less(desk)
    desk.configs.quicker = 99


CONFIGURATION: list[Asked] = [
    got(CONFIG, CONFIG, 200),
    got(CONFIG, CONFIG, 200, prepare=less),
    got(HISTORY, HISTORY, 200, prepare=less),
    got(HISTORY, f"{HISTORY}?limit=0", 400),
    got(EXPERIMENTS, EXPERIMENTS, 200, prepare=tried),
    got(REPORT, f"{STOPS}/report", 200, prepare=tried),
    got(REPORT, f"{STOPS}/report", 404),
    got(PREFERENCES, PREFERENCES, 200, TOKEN),
    put(CONFIG, CONFIG, 200, LESS),
    put(CONFIG, CONFIG, 200, LESS, prepare=less),
    put(CONFIG, CONFIG, 400, {"settings": {"ADMIN_TOKEN": "x"}, "reason": "to see"}),
    put(CONFIG, CONFIG, 409, {**LESS, "settings": {"SL_PERCENT": 9}}, prepare=quicker),
    posted(ROLLBACK, ROLLBACK, 200, BACK, prepare=less),
    posted(ROLLBACK, ROLLBACK, 400, {"version": -1, "reason": "as it was"}),
    posted(ROLLBACK, ROLLBACK, 404, {"version": 9, "reason": "as it was"}),
    posted(ROLLBACK, ROLLBACK, 409, BACK, prepare=quicker),
    put(ONE, STOPS, 200, TRY),
    put(ONE, STOPS, 400, {"variants": [{"name": "usual"}], "reason": "to see"}),
    put(ONE, STOPS, 409, TRY, prepare=quicker),
    put(PREFERENCES, PREFERENCES, 200, {"time_zone": "UTC"}, TOKEN),
    put(PREFERENCES, PREFERENCES, 400, {"time_zone": "Mars"}, TOKEN),
    *(put(*where, 413, BIG) for where in ((CONFIG, CONFIG), (ONE, STOPS), (PREFERENCES, PREFERENCES))),
    posted(ROLLBACK, ROLLBACK, 413, BIG),
    *(
        got(path, url, status, token, prepare)
        for path, url in (
            (CONFIG, CONFIG),
            (HISTORY, HISTORY),
            (EXPERIMENTS, EXPERIMENTS),
            (REPORT, f"{STOPS}/report"),
        )
        for status, token, prepare in ((401, "wrong", None), (403, TOKEN, None), (429, "wrong", tired))
    ),
    *(
        put(path, url, status, body, token, prepare)
        for path, url, body in ((CONFIG, CONFIG, LESS), (ONE, STOPS, TRY))
        for status, token, prepare in (
            (401, "wrong", None),
            (403, TOKEN, None),
            (429, "wrong", tired),
            (503, ADMIN, down),
        )
    ),
    *(
        posted(ROLLBACK, ROLLBACK, status, BACK, token, prepare)
        for status, token, prepare in (
            (401, "wrong", None),
            (403, TOKEN, None),
            (429, "wrong", tired),
            (503, ADMIN, down),
        )
    ),
    *(
        got(path, url, 503, prepare=down)
        for path, url in (
            (CONFIG, CONFIG),
            (HISTORY, HISTORY),
            (EXPERIMENTS, EXPERIMENTS),
            (REPORT, f"{STOPS}/report"),
            (PREFERENCES, PREFERENCES),
        )
    ),
    got(PREFERENCES, PREFERENCES, 401, "wrong"),
    got(PREFERENCES, PREFERENCES, 429, "wrong", tired),
    narrow("get", PREFERENCES, PREFERENCES, networks=("10.0.0.0/8",)),
    put(PREFERENCES, PREFERENCES, 401, {}, "wrong"),
    put(PREFERENCES, PREFERENCES, 429, {}, "wrong", tired),
    put(PREFERENCES, PREFERENCES, 503, {}, TOKEN, down),
    narrow("put", PREFERENCES, PREFERENCES, networks=("10.0.0.0/8",)),
]
