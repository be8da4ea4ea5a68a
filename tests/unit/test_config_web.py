"""The configuration at the routes: by whom, with which field wrong, and in force at the door too."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.limits import Limits
from tests.fake_clients import a_client
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk

CONFIG, PREFERENCES = "/api/v1/config", "/api/v1/preferences"
WHY = {"reason": "a calm day"}


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path)


def test_a_change_shows_who_and_why_and_what_was_before(desk: WebDesk) -> None:
    body = {"settings": {"risk_max_open_lots": 7, "QTY_CAPS": {"NIFTY": 1}}, **WHY}
    done = desk.api("put", CONFIG, ADMIN, body).get_json()
    assert (done["version"], done["by"], done["changed"]) == (1, "api:admin", True)
    assert {"name": "RISK_MAX_OPEN_LOTS", "old": "50", "new": "7"} in done["changes"]
    assert desk.api("put", CONFIG, ADMIN, body).get_json()["changed"] is False
    shown = {s["name"]: s for s in desk.api("get", CONFIG).get_json()["settings"]}
    cap = shown["RISK_MAX_OPEN_LOTS"]
    assert (cap["value"], cap["environment"], cap["is_set"]) == ("7", "50", True)
    assert shown["SL_PERCENT"]["is_set"] is False
    (version,) = desk.api("get", f"{CONFIG}/history").get_json()["versions"]
    assert (version["reason"], version["by"]) == ("a calm day", "api:admin")


def test_an_illegal_value_is_refused_with_the_field_s_name(desk: WebDesk) -> None:
    answer = desk.api("put", CONFIG, ADMIN, {"settings": {"RISK_MAX_OPEN_LOTS": 0, "SL_PERCENT": 0}, **WHY})
    assert answer.status_code == 400
    assert {e["field"] for e in answer.get_json()["errors"]} == {"RISK_MAX_OPEN_LOTS", "SL_PERCENT"}
    secret = desk.api("put", CONFIG, ADMIN, {"settings": {"ADMIN_TOKEN": "x"}, **WHY})
    assert [e["field"] for e in secret.get_json()["errors"]] == ["ADMIN_TOKEN"]
    assert [e["field"] for e in desk.api("put", CONFIG, ADMIN, {}).get_json()["errors"]] == ["reason"]
    assert desk.configs.versions == []


def limits(desk: WebDesk) -> Limits:
    return desk.config().policy.limits


@pytest.mark.parametrize("value", [[], [""], ["NIFTY", " "], [None], [["NIFTY"]]], ids=repr)
def test_a_list_that_is_empty_switches_no_limit_off(tmp_path: Path, value: list[object]) -> None:
    desk = WebDesk(tmp_path, risk_symbols="NIFTY", risk_max_open_lots=5)
    for name in ("RISK_SYMBOLS", "RISK_MAX_OPEN_LOTS", "IP_ALLOWLIST", "QTY_CAPS"):
        answer = desk.api("put", CONFIG, ADMIN, {"settings": {name.lower(): value}, **WHY})
        (error,) = answer.get_json()["errors"]
        assert (answer.status_code, error["field"]) == (400, name)
        assert error["message"].startswith("expected a list of texts of which none is empty")
    assert desk.configs.versions == []
    assert (limits(desk).symbols, limits(desk).max_open_lots) == (frozenset({"NIFTY"}), 5)


def test_off_is_said_by_an_empty_text_and_null_gives_back(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, risk_symbols="NIFTY")
    found = []
    for value in (["nifty", "BankNifty"], "", None):
        assert desk.api("put", CONFIG, ADMIN, {"settings": {"RISK_SYMBOLS": value}, **WHY}).status_code == 200
        found.append(limits(desk).symbols)
    assert found == [frozenset({"NIFTY", "BANKNIFTY"}), None, frozenset({"NIFTY"})]


@pytest.mark.parametrize("text", [",", " , ", " "])
def test_a_list_that_names_nobody_leaves_the_door_as_it_was(tmp_path: Path, text: str) -> None:
    desk = WebDesk(tmp_path, ip_allowlist="10.0.0.0/8")
    answer = desk.api("put", CONFIG, ADMIN, {"settings": {"IP_ALLOWLIST": text}, **WHY})
    assert (answer.status_code, [e["field"] for e in answer.get_json()["errors"]]) == (400, ["IP_ALLOWLIST"])
    assert desk.webhook().status_code == 403


def test_no_secret_stands_among_what_is_shown(desk: WebDesk) -> None:
    text = desk.api("get", CONFIG).text
    assert TOKEN not in text
    assert ADMIN not in text


def test_the_allowlist_is_in_force_at_the_door(desk: WebDesk) -> None:
    assert desk.webhook().status_code == 200
    desk.api("put", CONFIG, ADMIN, {"settings": {"IP_ALLOWLIST": "tradingview, 10.0.0.0/8"}, **WHY})
    assert desk.webhook().status_code == 403
    assert len(desk.sent()) == 1
    desk.api("put", CONFIG, ADMIN, {"settings": {"IP_ALLOWLIST": None}, **WHY})
    assert desk.webhook().status_code == 200


def test_the_rate_limit_is_in_force_at_the_door(desk: WebDesk) -> None:
    desk.api("put", CONFIG, ADMIN, {"settings": {"RATE_LIMIT_WEBHOOK": "1 per minute"}, **WHY})
    assert [desk.webhook(strategy=f"s{n}").status_code for n in range(2)] == [200, 429]
    desk.api("put", CONFIG, ADMIN, {"settings": {"RATE_LIMIT_WEBHOOK": "60 per minute"}, **WHY})
    assert desk.webhook(strategy="again").status_code == 200


def test_a_flag_for_and_against_one_strategy_is_refused(desk: WebDesk) -> None:
    flags = {"entries": {"percent": 50, "on": ["orb"], "off": ["orb"]}}
    assert desk.api("put", CONFIG, ADMIN, {"flags": flags, **WHY}).status_code == 400
    flags["entries"]["off"] = ["vwap"]
    assert desk.api("put", CONFIG, ADMIN, {"flags": flags, **WHY}).status_code == 200
    (flag,) = desk.api("get", CONFIG).get_json()["flags"]
    assert (flag["percent"], flag["on"], flag["off"]) == (50, ["orb"], ["vwap"])


def test_an_experiment_narrowed_and_stopped(desk: WebDesk) -> None:
    variants = [{"name": "usual"}, {"name": "wide", "sl_percent": 30, "kind": "LIMIT"}]
    url = "/api/v1/experiments/stops"
    assert desk.api("put", url, ADMIN, {"variants": variants, **WHY}).status_code == 200
    body = {"variants": variants, "strategies": ["orb"], "running": False, **WHY}
    assert desk.api("put", url, ADMIN, body).status_code == 200
    (found,) = desk.api("get", "/api/v1/experiments").get_json()["experiments"]
    assert (found["running"], found["strategies"]) == (False, ["orb"])
    assert found["variants"][1] == {
        "name": "wide",
        "weight": 1,
        "sl_percent": "30",
        "tp_percent": None,
        "kind": "LIMIT",
    }
    wrong = desk.api("put", "/api/v1/experiments/BAD", ADMIN, body)
    assert [e["field"] for e in wrong.get_json()["errors"]] == ["name"]


def test_a_channel_that_there_is_not_cannot_be_chosen(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, notify_urls="json://one.invalid,tgram://123456789:token/1")
    for word in ("2", "TGRAM", "2 tgram"):
        assert desk.api("put", PREFERENCES, TOKEN, {"channels": [word]}).status_code == 200
    answer = desk.api("put", PREFERENCES, TOKEN, {"channels": ["2", "slack"]})
    assert [e["field"] for e in answer.get_json()["errors"]] == ["channels"]
    assert "2 tgram" in answer.get_data(as_text=True)
    assert "123456789" not in answer.get_data(as_text=True)


def test_each_client_has_its_own_preferences(desk: WebDesk) -> None:
    other = a_client(desk.clients, "desk-2", "read")
    assert desk.api("put", PREFERENCES, other, {"time_zone": "UTC", "columns": ["state"]}).status_code == 200
    assert desk.api("get", PREFERENCES, other).get_json()["time_zone"] == "UTC"
    assert desk.api("get", PREFERENCES, TOKEN).get_json()["time_zone"] == "Asia/Kolkata"
    for wrong in ({"columns": ["nosuch"]}, {"time_zone": "../etc/passwd"}, {"colour": "red"}):
        answer = desk.api("put", PREFERENCES, other, wrong)
        assert [e["field"] for e in answer.get_json()["errors"]] == list(wrong)
    assert desk.api("get", PREFERENCES, other).get_json()["columns"] == ["state"]
