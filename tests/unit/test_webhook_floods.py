"""A known sender whose alerts are wrong, and the webhook's token at the other door."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.web.middleware import rate_limit
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
