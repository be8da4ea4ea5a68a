"""Log lines: one JSON object each, by whatever logger; and no secret in any of them, in whatever spelling."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.service import observe
from app.service.clients import SIGNING_PREFIX, TOKEN_PREFIX, new_token
from app.settings import Settings
from app.telemetry import logging as own
from app.telemetry import secrets as secrets_of_lines
from app.telemetry.secrets import GONE, MAX_TRACE, Secrets, spellings
from tests.unit.web_desk import ALERT, WebDesk

CANARY = 'Cänary/9+x y"&=7'
PIN = "8361"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(own, "SECRETS", Secrets())
    root = logging.getLogger()
    level, config = root.level, structlog.get_config()
    yield
    for handler in [h for h in root.handlers if isinstance(h, own._Ours)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    structlog.configure(**config)


def configured(**values: Any) -> Settings:
    settings = Settings.model_validate({"admin_token": CANARY, "fyers_pin": PIN, **values})
    own.configure(settings)
    return settings


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_logger_writes_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    structlog.get_logger("ours").info("placed", order="o1", empty=None)
    for name in ("urllib3.connectionpool", "werkzeug", "flask.app", "fyers_apiv3", "gunicorn.error"):
        logging.getLogger(name).warning("it said %s", "so\nand so")
    said = lines(capsys.readouterr().out)
    assert said[0] | {"timestamp": ""} == {
        "event": "placed", "order": "o1", "level": "info", "logger": "ours", "timestamp": "",
    }  # fmt: skip
    assert [line["logger"] for line in said[1:]] == [
        "urllib3.connectionpool", "werkzeug", "flask.app", "fyers_apiv3", "gunicorn.error",
    ]  # fmt: skip
    assert {line["event"] for line in said[1:]} == {"it said so\nand so"}


def test_the_ids_of_the_work_stand_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    with observe.following(observe.Trail("request", "r-1", trace_id="ab" * 16)):
        observe.note(order_id="O9")
        logging.getLogger("app.x").warning("within")
    logging.getLogger("app.x").warning("outside")
    within, outside = lines(capsys.readouterr().out)
    assert (within["request_id"], within["order_id"], within["trace_id"]) == ("r-1", "O9", "ab" * 16)
    assert not {"request_id", "order_id", "trace_id"} & set(outside)


def spelt(secret: str) -> list[str]:
    raw = secret.encode()
    found = [
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        re.sub("%..", lambda m: m[0].lower(), quote(secret, safe="")),
        repr(secret),
    ]
    found += [json.dumps(secret), json.dumps(secret, ensure_ascii=False)]
    for before in (b"", b"u", b"u:", b"user:"):
        found += [
            base64.b64encode(before + raw + b":z").decode(),
            base64.urlsafe_b64encode(before + raw).decode(),
        ]
    return found


def shows(text: str, secret: str) -> list[str]:
    """Which spellings of the secret a text holds: its own search, not the code's."""
    raw, found = secret.encode(), []
    for shift in range(3):
        part = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : (shift + len(raw)) // 3 * 4].decode()
        found += [part, part.replace("+", "-").replace("/", "_")]
    plain = [
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ]
    return [f for f in [*plain, *found] if f.lower() in text.lower()]


@pytest.mark.parametrize("spelling", spelt(CANARY))
def test_a_secret_is_shown_in_no_spelling(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    log = structlog.get_logger("ours")
    log.warning("before", detail=f"{spelling} after", field=spelling, nested={"a": [spelling], spelling: 1})
    logging.getLogger("urllib3").warning("GET /?x=%s HTTP/1.1", spelling)
    try:
        raise ValueError(f"with {spelling} in it")  # noqa: TRY301
    except ValueError:
        log.exception("it broke")
        logging.getLogger("sdk").exception("broke with %s", spelling)
    out = capsys.readouterr().out
    assert len(lines(out)) == 4
    assert shows(out, CANARY) == []
    assert "before" in out
    assert "ValueError" in out


def test_without_the_redaction_the_search_itself_would_find_them() -> None:
    """The test above proves nothing if `shows` finds nothing."""
    assert all(shows(spelling, CANARY) for spelling in spelt(CANARY))


def test_a_pin_is_hidden_as_a_word_and_numbers_that_hold_it_stay(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    logging.getLogger("x").warning("body pin=%s and %s, order 118361222", PIN, PIN)
    event = lines(capsys.readouterr().out)[0]["event"]
    assert f" {PIN}" not in event
    assert f"={PIN}" not in event
    assert "118361222" in event


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-ghi",
        "?auth_code=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.abc",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
        "postgresql+psycopg://desk:hunter22@db/x",
        "{'refresh_token': 'r-aaaaaaaa'}",
    ],
)
def test_what_looks_like_a_secret_is_hidden_without_being_known(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configured()
    logging.getLogger("x").warning("%s", text)
    out = capsys.readouterr().out
    assert not any(s in out for s in ("abc.def-ghi", "eyJzdWIi", "hunter22", "r-aaaaaaaa"))
    assert GONE in out


def test_a_field_is_hidden_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    structlog.get_logger("x").info(
        "e", token="t0", nested={"Api_Key": "k0", "Set-Cookie": "c0"}, pin=12, ok="v"
    )
    line = lines(capsys.readouterr().out)[0]
    assert (line["token"], line["nested"], line["ok"]) == (GONE, {"Api_Key": GONE, "Set-Cookie": GONE}, "v")


def test_a_token_of_the_request_is_hidden_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    with observe.following(observe.Trail("request", "r")):
        observe.hide("client-token-1")
        logging.getLogger("x").warning("got client-token-1")
    logging.getLogger("x").warning("got client-token-1")
    within, outside = (line["event"] for line in lines(capsys.readouterr().out))
    assert "client-token-1" not in within
    assert "client-token-1" in outside


def test_passwords_within_addresses_are_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configured(database_url="postgresql+psycopg://u:s3cr%40tpass@h/d", redis_url="redis://:r3dis@p-pass@h")
    logging.getLogger("x").warning("no login for s3cr@tpass or s3cr%%40tpass or r3dis@p-pass")
    out = capsys.readouterr().out
    assert not any(s in out for s in ("s3cr@tpass", "s3cr%40tpass", "r3dis@p-pass", "p-pass"))


def test_a_databases_password_may_hold_what_ends_another_address_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configured(database_url="postgresql+psycopg://u:be/fore#and?after@h/d")
    logging.getLogger("x").warning("no login for be/fore#and?after")
    assert "after" not in capsys.readouterr().out


def test_values_are_bounded_and_the_cause_of_a_trace_stays(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    log, end = structlog.get_logger("x"), "the end"
    log.info(
        "e" * 9_000, text="a" * 100_000, many=list(range(1_000)), deep={"a": {"b": {"c": {"d": {"e": 1}}}}}
    )
    try:
        raise ValueError(f"{'y' * 100_000}{end}")  # noqa: TRY301
    except ValueError:
        log.exception("broke")
    first, second = capsys.readouterr().out.splitlines()
    assert len(first) < 6_000
    assert MAX_TRACE < len(second) < MAX_TRACE + 500
    assert second.count("the end") == 1


def test_levels_by_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_level="WARNING", log_file=tmp_path / "new" / "dir" / "a.log", file_log_level="DEBUG")
    log = structlog.get_logger("x")
    log.debug("d")
    log.warning("w")
    assert [line["event"] for line in lines(capsys.readouterr().out)] == ["w"]
    kept = (tmp_path / "new" / "dir" / "a.log").read_text(encoding="utf-8")
    assert [line["event"] for line in lines(kept)] == ["d", "w"]


def test_the_cloud_gets_its_fields_and_its_own_level(capsys: pytest.CaptureFixture[str]) -> None:
    configured(use_cloud_logging=True, cloud_log_level="ERROR", google_cloud_project="p1")
    with observe.following(observe.Trail("request", "r", trace_id="cd" * 16)):
        structlog.get_logger("x").warning("w")
        structlog.get_logger("x").error("e")
    (line,) = lines(capsys.readouterr().out)
    assert (line["severity"], line["message"]) == ("ERROR", "e")
    assert line["logging.googleapis.com/trace"] == f"projects/p1/traces/{'cd' * 16}"


def test_a_file_that_cannot_be_written_warns_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    configured(log_file=tmp_path / "taken" / "a.log")
    structlog.get_logger("x").info("goes on")
    first, second = lines(capsys.readouterr().out)
    assert first["level"] == "warning"
    assert "LOG_FILE" in first["event"]
    assert second["event"] == "goes on"


def test_a_handler_that_fails_says_nothing_of_the_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured()

    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken())
        logging.getLogger("x").warning("with %s", CANARY)
    err = capsys.readouterr().err
    assert "lost" in err
    assert CANARY not in err


def test_a_line_costs_little() -> None:
    """Spellings are made once per secret, and a line is searched for them, not matched against a pattern of all."""
    secrets = Secrets()
    secrets.add(*(f"secret-number-{n}-abcdefgh" for n in range(30)))
    spellings.cache_clear()
    assert secrets.clean("a line without any of them " * 20).count("line") == 20
    assert spellings.cache_info().misses == 0


@pytest.mark.parametrize("place", ["/webhook/{}", "/webhook{}", "/webhook/token%3D{}", "/webhook/{}/x"])
def test_a_token_in_the_address_stands_in_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """A trader puts it there in place of the body: 404, and the token lives on."""
    desk, token = WebDesk(tmp_path), new_token()
    assert desk.client.post(place.format(token), json=ALERT).status_code == 404
    out = capsys.readouterr().out
    assert token not in out
    assert token.removeprefix(TOKEN_PREFIX) not in out
    (said,) = [line["path"] for line in lines(out) if line["event"] == "request"]
    assert said == place.format(token).replace("%3D", "=").replace(token, GONE)


@pytest.mark.parametrize("mark", [TOKEN_PREFIX, SIGNING_PREFIX, TOKEN_PREFIX.upper()])
def test_what_looks_like_a_token_of_ours_is_gone_and_its_mark_alone_is_not(mark: str) -> None:
    secrets, text = Secrets(), f'{{"path":"/x{mark}{"Ab3_" * 8}"}}'
    assert secrets.clean(text) == f'{{"path":"/x{GONE}"}}'
    assert not secrets.is_clean(text)
    assert secrets.clean(f"a token begins with {mark}") == f"a token begins with {mark}"


@given(st.from_regex(secrets_of_lines._OWN_SHAPES))
def test_no_shape_of_ours_passes_the_quick_look(text: str) -> None:
    assert secrets_of_lines._OWN_SHAPES.search(Secrets().clean(text)) is None


@given(st.from_regex(secrets_of_lines._KEY) | st.from_regex(secrets_of_lines._PAIR))
def test_whatever_the_slow_search_finds_the_quick_look_lets_through(text: str) -> None:
    assert secrets_of_lines._may_hold(text)


@pytest.mark.parametrize(
    "text", ["ſecret=hunter22", "toKen=hunter22", "apıkey=hunter22", "AUTHCODE=hunter22"]
)
def test_letters_that_count_as_others_hide_no_secret(text: str) -> None:
    assert "hunter22" not in Secrets().clean(text)
