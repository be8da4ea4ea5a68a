"""`flask config|flags|experiments …`: what they print, and what is different afterwards."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from app.domain.audit import Event
from app.domain.experiment import Flag
from app.domain.status import Status
from app.service.config import InForce
from app.service.records import AuditEvent
from tests.builders import an_order
from tests.unit.operator_desk import BORN, ME, Operator

WHY = ("--reason", "a calm day")
CAP = "RISK_MAX_OPEN_LOTS"


def in_force(operator: Operator) -> InForce:
    assert operator.ports.config is not None
    return operator.ports.config()


def test_a_limit_set_looked_at_and_rolled_back(operator: Operator) -> None:
    said = operator.said("config", "set", CAP.lower(), "7", *WHY)
    assert f"{CAP}: 50 -> 7" in said
    assert operator.said("config", "get", CAP) == "7\n"
    assert operator.ports.desk().policy.limits.max_open_lots == 7
    (line,) = [row for row in operator.said("risk", "list").splitlines() if CAP in row]
    assert line.split()[1] == "7"
    assert operator.said("config", "set", CAP, "7", *WHY) == "all is so already, by version 1\n"
    operator.said("config", "set", CAP, "", *WHY)
    assert operator.ports.desk().policy.limits.max_open_lots is None
    history = operator.said("config", "history")
    assert ME in history
    assert "a calm day" in history
    assert history.index(f"{CAP}: 7 -> none") < history.index(f"{CAP}: 50 -> 7")
    operator.said("config", "rollback", "1", *WHY)
    assert operator.said("config", "get", CAP) == "7\n"
    operator.said("config", "set", CAP, "--environment", *WHY)
    listing = operator.said("config", "get")
    assert listing.startswith("version 4: ")
    assert operator.ports.desk().policy.limits.max_open_lots == 50


def test_what_is_wrong_is_one_line_with_the_setting_s_name(operator: Operator) -> None:
    assert CAP in operator.refused("config", "set", CAP, "none", *WHY)
    assert "ADMIN_TOKEN" in operator.refused("config", "set", "ADMIN_TOKEN", "x", *WHY)
    assert "SL_PERCENT" in operator.refused("config", "set", "SL_PERCENT", "", *WHY)
    assert "VALUE" in operator.refused("config", "set", CAP, *WHY)
    assert "version 9" in operator.refused("config", "rollback", "9", *WHY)
    assert "reason" in operator.refused("config", "set", CAP, "7")
    assert operator.said("config", "history").startswith("no change yet")


def test_flags(operator: Operator) -> None:
    said = operator.said("flags", "set", "entries", "20", "--on", "orb", "--off", "vwap", *WHY)
    assert said.startswith("version 1, 1 change")
    assert in_force(operator).document.flags == {"entries": Flag(20, {"orb": True, "vwap": False})}
    assert operator.ports.desk().policy.rollout.entries.percent == 20
    assert "20 %" in operator.said("flags", "list")
    assert "nosuch" in operator.refused("flags", "set", "nosuch", "20", *WHY)
    assert "orb" in operator.refused("flags", "set", "entries", "20", "--on", "orb", "--off", "orb", *WHY)


def test_an_experiment_from_start_to_report(operator: Operator) -> None:
    start = ("experiments", "start", "stops", "--variant", "usual", "--strategy", "orb")
    operator.said(*start, "--variant", "wide:3:sl=30,tp=40.5,kind=limit", *WHY)
    listing = operator.said("experiments", "list")
    assert "wide:3 sl 30 % tp 40.5 % LIMIT" in listing
    assert "running" in listing
    order = replace(
        an_order(1, variant="stops/wide", status=Status.FILLED, ltp=Decimal(100)),
        scope=operator.ports.scope,
        filled_quantity=65,
        fill_price=Decimal("101.5"),
        created_at=BORN,
        updated_at=BORN,
    )
    with operator.ports.store.write() as tx:
        tx.insert_order(order, AuditEvent(Event.ORDER_FILLED, BORN, order.status, {}))
    report = operator.said("experiments", "report", "stops").splitlines()
    assert report[2].split()[:5] == ["wide", "3", "1", "1", "1.50"]
    assert "Wilson" in report[-1]
    operator.said("experiments", "stop", "stops", *WHY)
    assert operator.ports.desk().policy.rollout.experiments == ()
    assert "other variants" in operator.refused(*start, "--variant", "wide:3:sl=20", *WHY)
    operator.said(*start, "--variant", "wide:3:sl=30,tp=40.5,kind=LIMIT", *WHY)
    assert "stops" in operator.refused(
        "experiments", "start", "all", "--variant", "a", "--variant", "b", *WHY
    )


def test_a_variant_that_is_wrong_is_named(operator: Operator) -> None:
    for wrong, word in (
        ("wide:1:sl=x", "sl=x"),
        ("wide:1:sl=100", "sl_percent of variant wide"),
        ("wide:0", "weight"),
        ("W", "name"),
        ("a:1:b=2", "b=2"),
    ):
        said = operator.refused(
            "experiments", "start", "stops", "--variant", "usual", "--variant", wrong, *WHY
        )
        assert word in said
    assert "nosuch" in operator.refused("experiments", "stop", "nosuch", *WHY)
    assert "nosuch" in operator.refused("experiments", "report", "nosuch")
    assert operator.said("experiments", "list") == "no experiments\n"
