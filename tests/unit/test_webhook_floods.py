"""A known sender whose alerts are wrong, the webhook's token at the other door, and records of what failed by us."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.service.records import Refusal
from app.web.afterwards import MOST, WITHIN_S, Afterwards
from app.web.middleware import rate_limit
from app.web.middleware.failures import FREE_RECORDS
from tests.builders import NOW, SCOPE
from tests.fakes import FakeClock, FakeStore
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk


def test_a_broken_template_that_loops_is_told_to_wait_and_stops_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "API", "5 per minute")
    desk = WebDesk(tmp_path)
    said = [desk.webhook(action="BUYY", token=TOKEN).status_code for _ in range(300)]
    assert said == [400] * 5 + [429] * 295
    assert len(desk.store.data.refusals) < 150
    assert desk.webhook(**ALERT).status_code == 200, "what is right is no part of that flood"


@pytest.mark.parametrize(("address", "status"), [("203.0.113.5", 200), ("198.51.100.5", 403)])
def test_the_webhook_s_token_is_bound_to_its_addresses_at_every_door(
    tmp_path: Path, address: str, status: int
) -> None:
    desk = WebDesk(tmp_path, ip_allowlist="203.0.113.0/24")
    here = {"REMOTE_ADDR": address}
    by_header = {"Authorization": f"Bearer {TOKEN}"}
    body = {name: value for name, value in ALERT.items() if name != "token"}
    ordered = desk.client.post("/api/v1/orders", json=body, headers=by_header, environ_base=here)
    assert ordered.status_code == status, ordered.get_json()
    listed = desk.client.get("/api/v1/orders", headers=by_header, environ_base=here)
    assert listed.status_code == status
    assert len(desk.broker.ledger) == (1 if status == 200 else 0)
    operator = desk.client.get(
        "/api/v1/orders", headers={"Authorization": f"Bearer {ADMIN}"}, environ_base=here
    )
    assert operator.status_code == 200, "the list is not the operator's"


def slow_to_answer(desk: WebDesk, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A database that says nothing. How long each record had."""
    allowed: list[float] = []

    def hangs(_scope: object, _refusal: Refusal, deadline: Deadline | None = None) -> None:
        assert deadline is not None
        allowed.append(deadline.left(desk.clock.monotonic()))
        raise StoreUnavailable("no time left for the database")

    monkeypatch.setattr(desk.store, "record_refusal", hangs)
    return allowed


def kept(desk: WebDesk) -> list[tuple[str | None, int, str]]:
    return [(r.client, r.status, r.code) for _, r in desk.store.data.refusals]


def test_a_failure_of_ours_from_before_a_row_is_kept_once_its_answer_has_gone(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.contracts.missing = True
    found = ("default", 503, "no_symbol_master")
    for n, path in enumerate(("/webhook", "/api/v1/orders")):
        answer = desk.api("POST", path, TOKEN, {"token": TOKEN, **ALERT})
        assert (answer.status_code, kept(desk)) == (503, [found] * n)
        answer.close()
        assert kept(desk) == [found] * (n + 1)
    desk.contracts.missing = False
    desk.broker.fail.add("quotes")
    desk.webhook().close()
    desk.api("POST", "/api/v1/check").close()
    assert len(kept(desk)) == 2, (
        "the broker's failure, and a question, are no failures of ours to take an alert"
    )


def test_what_an_outage_left_no_record_of_is_kept_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked next, be it a probe; each answer that follows gives it a moment, and no answer waits for it."""
    desk = WebDesk(tmp_path)
    with monkeypatch.context() as outage:
        allowed = slow_to_answer(desk, outage)
        desk.store.down = desk.clients.down = desk.heartbeats.down = True
        for answer in (desk.webhook(), desk.webhook(token="unknown"), desk.webhook(event="heartbeat")):
            assert answer.status_code == 503
            assert (allowed, kept(desk)) == ([], [])
        desk.client.get("/healthz").close()
        assert allowed == [WITHIN_S]
    desk.store.down = desk.clients.down = desk.heartbeats.down = False
    desk.client.get("/healthz").close()
    assert sorted(kept(desk), key=str) == sorted(
        [("default", 503, "store_unavailable")] * 2 + [(None, 503, "store_unavailable")], key=str
    )
    desk.client.get("/healthz").close()
    assert len(kept(desk)) == 3
    counted = 'slo_alerts_total{objective="availability",verdict="bad"} 3.0'
    assert counted in desk.api("GET", "/metrics").text, "`flask slo` goes by what is kept"


def test_strangers_in_an_outage_fill_neither_the_memory_nor_the_database(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path)
    desk.clients.down = True
    for _ in range(FREE_RECORDS + 200):
        assert desk.webhook(token="unknown").status_code == 503
    desk.clients.down = False
    desk.client.get("/healthz").close()
    assert len(kept(desk)) == FREE_RECORDS


def test_what_waits_for_the_database_is_bounded() -> None:
    clock = FakeClock()
    store = FakeStore(clock, SCOPE)
    waiting = Afterwards(store, SCOPE, clock.monotonic)
    for n in range(MOST + 5):
        waiting.add(Refusal(NOW, "127.0.0.1", "default", 503, "out_of_time", "", "", {}, f"r{n}"))
    waiting.write_down()
    assert [r.request_id for _, r in store.data.refusals] == [f"r{n}" for n in range(5, MOST + 5)]
