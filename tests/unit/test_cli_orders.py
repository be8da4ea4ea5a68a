"""The operator's commands over the real store: what they print, what they change, and one line for what goes wrong."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import create_engine, text

from app.domain.audit import Event
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.records import Cap
from tests.builders import TODAY
from tests.unit.operator_desk import ME, Operator

S = Status


def test_a_list_with_the_newest_first(operator: Operator) -> None:
    assert operator.said("orders", "list") == "no order in paper mode\n"
    first = operator.order(1, S.ACCEPTED, S.FILLED)
    second = operator.order(2, S.IN_DOUBT)
    head, *lines = operator.said("orders", "list").splitlines()
    assert head.split() == ["TIME", "(IST)", "ORDER", "STATE", "WHAT", "FILLED", "WHY"]
    assert [line.split()[2] for line in lines] == [second.id, first.id]
    assert lines[0].startswith("2026-11-18 10:32:01  ")
    assert "IN_DOUBT  entry BUY NSE:NIFTY26112424500CE INTRADAY  0/65    became IN_DOUBT" in lines[0]


def test_a_list_of_some(operator: Operator) -> None:
    first = operator.order(1, S.ACCEPTED)
    second = operator.order(2, S.REJECTED, ist_date=TODAY - timedelta(days=1))
    third = operator.order(3, S.ACCEPTED)

    def ids(*words: str) -> list[str]:
        lines = operator.said("orders", "list", *words).splitlines()
        return [line.split()[2] for line in lines if line.startswith("2026")]

    assert ids("--status", "accepted") == [third.id, first.id]
    assert ids("--date", "2026-11-17") == [second.id]
    assert ids("--date", "2026-11-18", "--limit", "1") == [third.id]
    assert "older ones" in operator.said("orders", "list", "--limit", "1")
    assert "older ones" not in operator.said("orders", "list", "--limit", "3")
    assert operator.said("orders", "list", "--date", "2020-01-01") == "no order in paper mode on 2020-01-01\n"


def test_a_list_of_what_is_in_doubt(operator: Operator) -> None:
    assert operator.said("orders", "list", "--in-doubt") == "no order in paper mode is in doubt\n"
    operator.order(1, S.ACCEPTED)
    doubt = operator.order(2, S.IN_DOUBT)
    review = operator.order(3, S.IN_DOUBT, S.NEEDS_REVIEW)
    said = operator.said("orders", "list", "--in-doubt")
    assert [line.split()[2] for line in said.splitlines() if line.startswith("2026")] == [review.id, doubt.id]
    only = operator.said("orders", "list", "--in-doubt", "--status", "IN_DOUBT")
    assert review.id not in only
    assert doubt.id in only


def test_one_order_with_its_timeline_in_ist(operator: Operator) -> None:
    order = operator.order(1, S.IN_DOUBT, S.NEEDS_REVIEW)
    said = operator.said("orders", "show", order.id.lower())
    head, _, timeline = said.partition("\n\n")
    assert f"order        {order.id}" in head
    assert "filled       0 of 65" in head
    lines = timeline.splitlines()
    assert [line.split()[3] for line in lines[1:4]] == ["SENDING", "IN_DOUBT", "NEEDS_REVIEW"]
    assert lines[1].startswith("2026-11-18 10:30:01.234  order:sending")
    assert "reason: became IN_DOUBT" in lines[2]
    assert f"orders resolve {order.id} --as STATE" in lines[-1]
    settled = operator.order(2, S.ACCEPTED)
    assert "resolve" not in operator.said("orders", "show", settled.id)


def test_a_verdict_is_on_record_with_who_and_why(operator: Operator) -> None:
    order = operator.order(1, S.IN_DOUBT, S.NEEDS_REVIEW)
    reason = "seen in the broker's app"
    said = operator.said(
        "orders",
        "resolve",
        order.id,
        "--as",
        "cancelled",
        "--reason",
        reason,
        "--filled",
        "5",
        "--price",
        "101.5",
    )
    assert said == f"{order.id}: NEEDS_REVIEW -> CANCELLED, 5 of 65 filled ({ME}: {reason})\n"
    row = operator.row(order)
    assert (row.status, row.filled_quantity, row.fill_price) == (S.CANCELLED, 5, Decimal("101.5"))
    last = operator.ports.store.events(row.scope, row.id)[-1]
    assert last.event is Event.ORDER_RESOLVED
    assert (last.detail["by"], last.detail["reason"]) == (ME, reason)
    assert f"by: {ME}; reason: {reason}" in operator.said("orders", "show", order.id)


@pytest.mark.parametrize(
    ("verdict", "value"),
    [
        (("--as", "REJECTED"), 0),
        (("--as", "CANCELLED", "--filled", "13"), 130),
        (("--as", "EXPIRED"), 0),
        (("--as", "NOT_PLACED"), 650),
        (("--as", "FILLED"), 650),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else str(v),
)
def test_a_verdict_gives_back_what_the_caps_had_for_it(
    operator: Operator, verdict: tuple[str, ...], value: int
) -> None:
    order = operator.order(1, S.IN_DOUBT, S.NEEDS_REVIEW)
    caps = (Cap("value", "2026-11-18", 10_000, 650, True), Cap("number", "2026-11-18", 10, 1, False))
    with operator.ports.store.write() as tx:
        assert tx.reserve(order.scope, order.id, caps) is None
    operator.said("orders", "resolve", order.id, *verdict, "--reason", "seen in the app")
    counted = create_engine(operator.ports.settings.url)
    with counted.connect() as connection:
        used = {row.name: row.used for row in connection.execute(text("SELECT name, used FROM caps"))}
    counted.dispose()
    assert used == {"value": value, "number": 1}


WRONG = [
    (("orders", "show", "NOSUCH"), "there is no order NOSUCH"),
    (("orders", "resolve", "NOSUCH", "--as", "FILLED", "--reason", "because"), "there is no order NOSUCH"),
    (("orders", "resolve", "NOSUCH", "--as", "FOO", "--reason", "because"), "expected one of DENIED, "),
    (("orders", "resolve", "NOSUCH", "--as", "FILLED"), "--reason"),
    (
        ("orders", "resolve", "{doubt}", "--as", "FILLED", "--reason", "because"),
        "can become ACCEPTED, NEEDS_REVIEW",
    ),
    (("orders", "resolve", "{accepted}", "--as", "FILLED", "--reason", "because"), "not settled by hand"),
    (("orders", "resolve", "{doubt}", "--as", "REJECTED", "--reason", "x"), "expected 3 to 500 characters"),
    (
        ("orders", "resolve", "{doubt}", "--as", "ACCEPTED", "--reason", "why", "--price", "nan"),
        "positive number",
    ),
    (
        ("orders", "resolve", "{doubt}", "--as", "ACCEPTED", "--reason", "why", "--filled", "66"),
        "expected 0 to 65",
    ),
    (("orders", "list", "--status", "foo"), "expected one of DENIED, "),
    (("orders", "list", "--date", "2026-13-01"), "--date"),
    (("orders", "list", "--limit", "0"), "--limit"),
    (("orders", "list", "--nosuch"), "--nosuch"),
    (("orders", "lost"), "lost"),
    (("halt",), "--reason"),
    (("halt", "--reason", " "), "characters that say why"),
    (("jobs", "run", "nosuch"), "there is no job 'nosuch': "),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_what_goes_wrong_is_one_line_and_changes_nothing(
    operator: Operator, words: tuple[str, ...], line: str
) -> None:
    doubt, accepted = operator.order(1, S.IN_DOUBT), operator.order(2, S.ACCEPTED)
    said = operator.refused(*(w.format(doubt=doubt.id, accepted=accepted.id) for w in words))
    assert line in said
    assert (operator.row(doubt), operator.row(accepted)) == (doubt, accepted)
    assert operator.state() is TradingState.ACTIVE
