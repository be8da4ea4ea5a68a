"""Standard Webhooks: the standard's own vector, what is refused, and what a copy of a message comes to."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from app.domain.alert import IST
from app.errors import NotAuthenticated
from app.settings import SettingsError, load
from app.web.middleware.rate_limit import API
from app.web.middleware.signature import TOLERANCE_S, Signatures
from tests.fake_clients import FakeClients, a_client
from tests.fake_store import FakeClock
from tests.unit.web_desk import ADMIN, ALERT, TOKEN, WebDesk

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLDER = "whsec_" + base64.b64encode(b"an older secret of 24 b.").decode()
ID, STAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
RIGHT = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""The standard's vector, as its reference libraries test it."""
THEN = datetime.fromtimestamp(STAMP, UTC)


def checker(secrets: str = SECRET) -> Signatures:
    return Signatures(secrets, FakeClients(FakeClock()))


def headers(ident: str = ID, stamp: object = STAMP, signature: str = RIGHT) -> Headers:
    return Headers({"webhook-id": ident, "webhook-timestamp": str(stamp), "webhook-signature": signature})


def sign(ident: str, stamp: int, body: bytes, secret: str = SECRET) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{ident}.{stamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(mac).decode()


@pytest.mark.parametrize(
    "secrets", [SECRET, SECRET.removeprefix("whsec_"), f"{OLDER}, {SECRET}", f"{SECRET},{OLDER}"]
)
@pytest.mark.parametrize(
    "signature",
    [
        RIGHT,
        "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= "
        + RIGHT
        + " v1a,x",
    ],
)
def test_the_standard_s_vector(secrets: str, signature: str) -> None:
    message = checker(secrets).check(headers(signature=signature), BODY, THEN)
    assert message is not None
    assert message.id == ID
    assert sign(ID, STAMP, BODY) == RIGHT


@pytest.mark.parametrize(
    ("given", "body"),
    [
        (headers(), b'{"test": 2432232315}'),
        (headers(), BODY + b" "),
        (headers(), b""),
        (headers("msg_x"), BODY),
        (headers(""), BODY),
        (headers(f"{ID}.{STAMP}", "1614265330"), BODY),
        (headers("m" * 129), BODY),
        (headers("msg ü"), BODY),
        (headers(stamp=STAMP + 1), BODY),
        (headers(stamp=""), BODY),
        (headers(stamp="soon"), BODY),
        (headers(stamp=f"+{STAMP}"), BODY),
        (headers(stamp=f"{STAMP}.0"), BODY),
        (headers(stamp="٣" * 10), BODY),
        (headers(stamp="9" * 5000), BODY),
        (headers(signature=""), BODY),
        (headers(signature="v1,"), BODY),
        (headers(signature="v1"), BODY),
        (headers(signature=RIGHT.replace("v1,", "v2,")), BODY),
        (headers(signature=RIGHT.replace("v1,", "v1a,")), BODY),
        (headers(signature=RIGHT.removeprefix("v1,")), BODY),
        (headers(signature=RIGHT.swapcase()), BODY),
        (headers(signature=RIGHT[:-1]), BODY),
        (headers(signature="v1,ü漢"), BODY),
        (headers(signature="v1, " * 16 + RIGHT), BODY),
        (headers(signature=sign(ID, STAMP, BODY, OLDER)), BODY),
    ],
)
def test_what_is_not_the_signature_of_this_message_is_refused(given: Headers, body: bytes) -> None:
    with pytest.raises(NotAuthenticated):
        checker().check(given, body, THEN)


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [
        (0, True),
        (TOLERANCE_S, True),
        (-TOLERANCE_S, True),
        (TOLERANCE_S + 1, False),
        (-TOLERANCE_S - 1, False),
    ],
)
def test_the_timestamp_s_tolerance(seconds: int, fresh: bool) -> None:
    now = THEN + timedelta(seconds=seconds)
    if fresh:
        assert checker().check(headers(), BODY, now) is not None
    else:
        with pytest.raises(NotAuthenticated):
            checker().check(headers(), BODY, now)


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=80), st.binary(max_size=60))
def test_no_made_up_message_passes(ident: str, stamp: str, signature: str, body: bytes) -> None:
    made = headers(ident.replace("\r", "").replace("\n", ""), "", "")
    made["webhook-timestamp"] = stamp.replace("\r", "").replace("\n", "") or "0"
    made["webhook-signature"] = signature.replace("\r", "").replace("\n", "")
    with pytest.raises(NotAuthenticated):
        checker().check(made, body, THEN)


def test_without_secrets_the_headers_mean_nothing_and_without_headers_there_is_no_message() -> None:
    assert checker("").check(headers(), BODY, THEN) is None
    assert checker().check(Headers(), BODY, THEN) is None


class Sender:
    """A sender of the trader's own, who signs."""

    def __init__(self, desk: WebDesk, secret: str = SECRET) -> None:
        self.desk, self.secret = desk, secret

    def send(
        self,
        ident: str = "msg_1",
        path: str = "/webhook",
        *,
        extra: Any = None,
        stamp: int = 0,
        **fields: Any,
    ) -> TestResponse:
        body = json.dumps({**ALERT, **fields}).encode()
        at = stamp or int(self.desk.clock.now().timestamp())
        given = headers(ident, at, sign(ident, at, body, self.secret))
        for name, value in (extra or {}).items():
            given[name] = value
        return self.desk.client.post(path, data=body, headers=given)


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    return WebDesk(tmp_path, webhook_hmac_secrets=f"{OLDER},{SECRET}")


@pytest.mark.parametrize("path", ["/webhook", "/api/v1/orders"])
@pytest.mark.parametrize("secret", [SECRET, OLDER])
def test_a_signature_stands_for_the_token(desk: WebDesk, path: str, secret: str) -> None:
    answer = Sender(desk, secret).send(path=path)
    assert (answer.status_code, answer.get_json()["client"]) == (200, "default")


def test_a_token_beside_it_says_which_client_it_is_and_must_be_right(desk: WebDesk) -> None:
    sender = Sender(desk)
    assert sender.send(token=a_client(desk.clients)).get_json()["client"] == "desk-2"
    assert sender.send("msg_2", token="wrong").status_code == 401
    assert sender.send("msg_3", token="").status_code == 401
    assert len(desk.sent()) == 1


def test_a_wrong_signature_is_refused_beside_a_right_token(desk: WebDesk) -> None:
    other = "whsec_" + base64.b64encode(b"a secret of somebody else").decode()
    assert Sender(desk, other).send(token=TOKEN).status_code == 401
    assert desk.sent() == []
    assert desk.webhook().status_code == 200


def test_the_same_message_again_gets_the_first_one_s_answer_however_late(desk: WebDesk) -> None:
    sender, stamp = Sender(desk), int(desk.clock.now().timestamp()) + TOLERANCE_S
    first = sender.send(stamp=stamp)
    assert first.status_code == 200
    for seconds in (
        0,
        1,
        41,
        258,
        299,
    ):  # the last is the end of the stamp's tolerance, far past the dedupe window
        desk.clock.advance(seconds)
        again = sender.send(stamp=stamp)
        assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (200, "true")
        assert again.get_json()["order_id"] == first.get_json()["order_id"]
    desk.clock.advance(2)
    assert sender.send(stamp=stamp).status_code == 401
    assert len(desk.sent()) == 1


def test_a_re_send_with_a_new_stamp_is_the_same_message(desk: WebDesk) -> None:
    sender = Sender(desk)
    assert sender.send().status_code == 200
    desk.clock.advance(3600)
    assert sender.send().headers["Idempotent-Replayed"] == "true"
    assert sender.send("msg_2").status_code == 200
    assert len(desk.sent()) == 2


def test_an_id_with_another_content_is_refused(desk: WebDesk) -> None:
    sender = Sender(desk)
    assert sender.send().status_code == 200
    answers = [
        sender.send(strategy="another"),
        sender.send(idempotency_key="k"),
        sender.send(extra={"Idempotency-Key": "the signature does not cover this"}),
    ]
    assert [(a.status_code, a.get_json()["code"]) for a in answers] == [(422, "replayed")] * 3
    assert len(desk.sent()) == 1


def test_a_captured_message_is_no_order_of_another_client_either(tmp_path: Path) -> None:
    """A bearer token beside it is not signed: who has one, and no signing secret, could send what another has signed."""
    desk = WebDesk(tmp_path, webhook_hmac_secrets=SECRET, require_signature=True)
    sender, other = Sender(desk), a_client(desk.clients)
    assert sender.send().status_code == 200
    answer = sender.send(path="/api/v1/orders", extra={"Authorization": f"Bearer {other}"})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "replayed")
    assert len(desk.sent()) == 1


def test_signed_questions_are_counted_too(desk: WebDesk) -> None:
    sender, most = Sender(desk), int(API.split(" ", 1)[0])
    statuses = [sender.send(f"msg_{n}", "/api/v1/check").status_code for n in range(most + 1)]
    assert (set(statuses[:-1]), statuses[-1]) == ({200}, 429)
    assert sender.send("msg_order").status_code == 200


def test_an_id_is_remembered_for_as_long_as_a_copy_can_be_fresh(desk: WebDesk) -> None:
    """A message stamped 300 s ahead is fresh for 600 s."""
    sender, stamp = Sender(desk), int(desk.clock.now().timestamp()) + TOLERANCE_S
    assert sender.send(stamp=stamp).status_code == 200
    desk.clock.advance(2 * TOLERANCE_S - 1)
    answer = sender.send(stamp=stamp, extra={"Idempotency-Key": "another"})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "replayed")
    assert len(desk.sent()) == 1


def test_a_copy_over_midnight_is_refused(desk: WebDesk) -> None:
    """An explicit key belongs to its IST date: on the next one it would be a new alert."""
    midnight = (desk.clock.now().astimezone(IST) + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    desk.clock.advance((midnight - desk.clock.now()).total_seconds() - 10)
    sender, stamp = Sender(desk), int(desk.clock.now().timestamp())
    assert sender.send(stamp=stamp, idempotency_key="k").status_code == 200
    desk.clock.advance(20)
    answer = sender.send(stamp=stamp, idempotency_key="k")
    assert (answer.status_code, answer.get_json()["code"]) == (422, "replayed")
    assert len(desk.sent()) == 1


def test_a_message_that_was_not_sent_for_want_of_the_database_may_come_again(desk: WebDesk) -> None:
    sender = Sender(desk)
    desk.clients.down = True
    assert sender.send().status_code == 503
    desk.clients.down, desk.store.down = False, True
    assert sender.send().status_code == 503
    desk.store.down = False
    assert sender.send().status_code == 200
    assert len(desk.sent()) == 1


@pytest.mark.parametrize("path", ["/webhook", "/api/v1/orders"])
def test_require_signature_wants_it_beside_the_token(tmp_path: Path, path: str) -> None:
    desk = WebDesk(tmp_path, webhook_hmac_secrets=SECRET, require_signature=True)
    by_token = desk.webhook() if path == "/webhook" else desk.api("post", path, TOKEN)
    assert (by_token.status_code, desk.sent()) == (401, [])
    assert "REQUIRE_SIGNATURE" in by_token.get_json()["detail"]
    assert Sender(desk).send(path=path, token=TOKEN).status_code == 200
    assert desk.api("post", "/api/v1/orders", ADMIN).status_code == 200, "the operator is not locked out"


def test_a_named_admin_s_alert_needs_the_signature_too(tmp_path: Path) -> None:
    desk = WebDesk(tmp_path, webhook_hmac_secrets=SECRET, require_signature=True)
    token = a_client(desk.clients, "boss", "admin", "orders")
    assert desk.webhook(token=token).status_code == 401
    assert Sender(desk).send(token=token).status_code == 200


@pytest.mark.parametrize(
    "given",
    [{"require_signature": True}, {"webhook_hmac_secrets": "whsec_tooshort"}],
)
def test_settings_that_could_not_work_stop_the_start(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(instance_dir=tmp_path, **given)
    assert "tooshort" not in str(caught.value)


def test_a_signed_alert_that_is_refused_leaves_its_record(desk: WebDesk) -> None:
    assert Sender(desk).send(lots=0).status_code == 400
    record = desk.store.data.refusals[-1][1]
    assert (record.client, record.code, record.safe_fields["lots"]) == ("default", "invalid_alert", "0")
