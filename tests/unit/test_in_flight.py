"""A copy of an alert that this process is working on: told so at once, from memory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.errors import KeyInUse
from app.service.in_flight import InFlight
from tests.builders import an_alert
from tests.unit.web_desk import WebDesk


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path)


def meanwhile(desk: WebDesk, answers: list[Any], *, down: bool, **fields: Any) -> None:
    """A delivery that comes while the broker is being asked for the first one's price, before there is a row."""

    def come() -> None:
        del desk.broker.on["quotes"]
        desk.store.down = down
        answers.append(desk.webhook(**fields))
        desk.store.down = False

    desk.broker.on["quotes"] = come


def test_a_copy_is_answered_409_without_the_database_and_leaves_no_record(desk: WebDesk) -> None:
    answers: list[Any] = []
    meanwhile(desk, answers, down=True)
    first, again = desk.webhook(), desk.webhook()
    assert [a.status_code for a in answers] == [409]
    assert answers[0].headers["Retry-After"] == "1"
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert desk.broker.calls.count("place") == 1
    assert desk.store.list_refusals(desk.desk.scope, 10) == ()


def test_copies_do_not_use_up_the_limit_of_entries(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, rate_limit_webhook="2 per minute")
    answers: list[Any] = []
    meanwhile(desk, answers, down=False)
    assert desk.webhook().status_code == 200
    assert [a.status_code for a in answers] == [409]
    assert desk.webhook(strategy="another").status_code == 200


def test_the_same_key_with_another_body_is_not_taken_for_a_copy(desk: WebDesk) -> None:
    answers: list[Any] = []
    meanwhile(desk, answers, down=False, idempotency_key="one", strategy="another")
    clashed = desk.webhook(idempotency_key="one")
    assert sorted([answers[0].status_code, clashed.status_code]) == [200, 422]
    assert desk.broker.calls.count("place") == 1


def test_what_was_not_sent_may_come_again_at_once(desk: WebDesk) -> None:
    desk.store.down = True
    assert desk.webhook().status_code == 503
    desk.store.down = False
    assert desk.webhook().status_code == 200


def test_clients_and_alerts_do_not_stand_in_each_others_way() -> None:
    flight, alert = InFlight(), an_alert(key="a")
    with flight.only(alert), flight.only(an_alert(key="b")), pytest.raises(KeyInUse), flight.only(alert):
        pytest.fail("a copy went through")
    with flight.only(alert):
        pass
