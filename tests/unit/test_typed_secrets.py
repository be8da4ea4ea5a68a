"""A secret typed into a field that is shown: no answer, no row and no record repeats it."""

from __future__ import annotations

import base64
import json
import secrets
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.errors import FieldError, InvalidAlert
from app.service import observe
from app.telemetry.secrets import Secrets
from app.web.errors import problem
from tests.fake_clients import a_client
from tests.unit.web_desk import ADMIN, ALERT, WebDesk

HOOK = "hook-of-this-file-4711"


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path, webhook_secret_token=HOOK)


def left(desk: WebDesk) -> str:
    """All that the service kept and told, in small letters."""
    return repr((desk.store.data, desk.notifier.__dict__)).lower()


WRONG = [
    *[
        (name, HOOK)
        for name in (
            "symbol",
            "strikeprice",
            "optionType",
            "expiry",
            "action",
            "lots",
            "productType",
            "exchange",
        )
    ],
    ("symbol", f"{HOOK} "),
    ("symbol", HOOK.upper()),
    ("symbol", ADMIN),
    ("symbol", base64.b64encode(HOOK.encode()).decode()),
    ("expiry", quote(f"&{HOOK}&", safe="")),
    ("action", [HOOK]),
    ("action", {"a": {"b": HOOK}}),
    ("strategy", [HOOK]),
    ("strategy", "{{" + HOOK + "}}"),
    ("fired_at", HOOK),
    ("idempotency_key", HOOK * 12),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_in_a_field_that_is_refused(desk: WebDesk, field: str, value: Any) -> None:
    answer = desk.webhook(token=HOOK, **{field: value})
    assert answer.status_code in (400, 422), answer.text
    assert field in answer.text or answer.get_json(force=True)["code"] == "unknown_symbol"
    for secret in (HOOK, ADMIN, base64.b64encode(HOOK.encode()).decode().rstrip("=")):
        assert secret.lower() not in answer.text.lower()
        assert secret.lower() not in left(desk)
    (refusal,) = desk.store.list_refusals(desk.desk.scope, 10)
    assert "(secret)" in (refusal.detail + repr(refusal.safe_fields)).lower() or field == "idempotency_key"


def test_a_strategys_name_is_kept_without_it_and_the_order_goes_through(desk: WebDesk) -> None:
    answer = desk.webhook(token=HOOK, strategy=f"orb {HOOK}")
    body = answer.get_json()
    assert (answer.status_code, body["status"], body["strategy"]) == (200, "accepted", "orb (secret)")
    assert any("change that secret" in w for w in body["warnings"])
    assert HOOK not in answer.text + left(desk)


def test_a_strategys_name_that_is_a_number(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, webhook_secret_token="47110815471108")
    answer = desk.webhook(token="47110815471108", strategy=47110815471108)
    assert (answer.status_code, answer.get_json()["strategy"]) == (200, "(secret)")
    assert "47110815471108" not in answer.text + left(desk)


def test_bodies_full_of_wrong_token_do_not_fill_the_memory(desk: WebDesk) -> None:
    """All spellings of what came as a token are kept for a while, and nobody has to know a token to send one."""
    body = '{"token":"%d' + "\N{KEY}" * 16_000 + '"}'
    desk.webhook(body=b'{"token":"wrong"}')
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        answers = [desk.webhook(body=(body % n).encode()).status_code for n in range(30)]
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert set(answers) == {401, 429}
    assert grown < 3_000_000


def test_two_keys_stay_two_whatever_stands_in_them(desk: WebDesk) -> None:
    jwts = [f"eyJhbGciOiJIUzI1NiJ9.{secrets.token_urlsafe(20)}.x" for _ in range(2)]
    ids = {desk.webhook(token=HOOK, idempotency_key=key).get_json()["order_id"] for key in (HOOK, *jwts)}
    assert len(ids) == 3


def test_in_the_name_of_a_field(desk: WebDesk) -> None:
    answer = desk.webhook(body=json.dumps({"token": HOOK, **ALERT, HOOK: 1}).encode())
    assert answer.status_code == 200
    assert "unknown field (secret) was ignored" in answer.get_json()["warnings"]
    strict = desk.api("post", "/api/v1/state", body=f'{{"state":"ACTIVE","{HOOK}":1}}'.encode())
    assert (strict.status_code, HOOK in strict.text) == (400, False)


QUERIES = [
    "/api/v1/orders?status={}",
    "/api/v1/orders?from={}",
    "/api/v1/orders?symbol={}",
    "/api/v1/orders?strategy={}",
    "/api/v1/orders?limit={}",
    "/api/v1/contracts?symbol={}&strike=24500&type=CE",
    "/api/v1/contracts?symbol=NIFTY&strike=24500&type={}",
    "/api/v1/refused?limit={}",
]


@pytest.mark.parametrize("query", QUERIES)
def test_in_a_query(desk: WebDesk, query: str) -> None:
    answer = desk.api("get", query.format(HOOK))
    assert answer.status_code == 400
    assert "(secret)" in answer.text
    assert HOOK not in answer.text.lower()


def test_the_beginning_of_a_long_one_is_not_shown_either(tmp_path: Path) -> None:
    """What is cut for showing would no longer be known as the secret."""
    hook, admin = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    desk = WebDesk(tmp_path, webhook_secret_token=hook, admin_token=admin)
    twice = desk.webhook(body=f'{{"{hook}":1,"{hook}":2}}'.encode())
    variants = [{"name": "a"}, {"name": "b"}]
    body = {"variants": variants, "reason": "a test of it"}
    named = desk.api("put", f"/api/v1/experiments/{hook}", admin, body)
    for answer in (twice, named):
        assert (answer.status_code, "(secret)" in answer.text) == (400, True)
        assert hook[:12] not in answer.text + left(desk)


def test_in_a_reason_that_is_kept(desk: WebDesk) -> None:
    answer = desk.api("post", "/api/v1/state", body=f'{{"state":"HALTED","reason":"by {HOOK}"}}'.encode())
    assert (answer.status_code, answer.get_json()["reason"]) == (200, "by (secret)")
    assert HOOK not in left(desk)


def test_a_clients_token_by_its_looks_and_what_came_with_the_request(desk: WebDesk) -> None:
    other = f"tvf_{secrets.token_urlsafe(32)}"
    own = a_client(desk.clients)
    for token in (other, own):
        answer = desk.webhook(token=own, symbol=token)
        assert answer.status_code == 400
        assert token not in answer.text + left(desk)


def test_what_is_no_secret_is_shown(desk: WebDesk) -> None:
    assert "was 'NIFTY 50'" in desk.webhook(token=HOOK, symbol="NIFTY 50").text
    assert "was 'tvf_short'" in desk.webhook(token=HOOK, expiry="tvf_short").text
    assert desk.webhook(token=HOOK, strategy="opening-range-breakout").get_json()["warnings"] == []


def test_a_pin_cannot_be_found_by_trying_which_word_is_hidden() -> None:
    known = Secrets()
    known.add("4821", "longer-secret")
    assert known.masked("4821 and longer-secret") == "4821 and (secret)"


def test_an_error_of_any_layer_is_shown_without_it(desk: WebDesk) -> None:
    with desk.app.test_request_context():
        error = InvalidAlert((FieldError(f"x {HOOK}", f"expected, was {HOOK}"),))
        answer = problem(400, "x", f"about {HOOK}", fields=error.errors)
    assert answer.get_data(as_text=True).count("(secret)") == 3
    assert HOOK not in answer.get_data(as_text=True)


def test_without_a_filter_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_MASKS", [])
    assert observe.masked(HOOK) == HOOK
