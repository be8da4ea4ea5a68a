"""What the sending process makes of a message that is too long for its channel: apprise is real, the wire is not."""

from __future__ import annotations

import errno
import json
import os
import queue
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from app.service.notices import LINES, body_of
from app.telemetry import outbox_child
from app.telemetry.outbox_child import Lane, _run, _send
from app.telemetry.outbox_sender import MOST_RECEIPTS_BYTES, Child
from tests.fakes import FakeClock

DISCORD = "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890/"
TELEGRAM = "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/12345/"
SMS = "bulksms://user:password@+919876543210"
WHY = "RED:Margin Shortfall:INR 1,23,456.78 Available:INR 4,321.10 for C-XA12345 [FYERS_RISK_CUG]"
LINES_SENT = [
    f"EXIT SELL {75 * n} NSE:NIFTY26NOV24500CE INTRADAY [orb]: {WHY} {'.' * 230}" for n in range(LINES)
]
TITLE, REF = f"PAPER PAGE order_rejected x{LINES}", "(ref 0123456789ab)"
# Of what a plugin of apprise imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@dataclass
class Wire:
    """A channel that refuses what is too long. `refuses`: the number of the message from which on it refuses all."""

    most: int
    refuses: int = 99
    texts: list[str] = field(default_factory=list)

    def send(self, request: requests.PreparedRequest, **__: object) -> requests.Response:
        said = json.loads(request.body or b"")
        self.texts.append(said.get("content") or said.get("text") or said.get("body"))
        answer = requests.Response()
        fits = len(self.texts[-1]) <= self.most and len(self.texts) < self.refuses
        answer.status_code = 200 if fits else 400
        answer._content = b"{}"
        return answer


def sent(monkeypatch: pytest.MonkeyPatch, wire: Wire, url: str, messages: list[str]) -> bool:
    monkeypatch.setattr(HTTPAdapter, "send", wire.send)
    body = f"{body_of(messages)}\n{REF}"
    return _send({"ref": "a", "channel": "1", "url": url, "page": True, "title": TITLE, "body": body})


@pytest.mark.parametrize(("url", "most"), [(DISCORD, 2000), (TELEGRAM, 4096)])
def test_what_is_too_long_for_its_channel_comes_in_parts_that_keep_every_line(
    monkeypatch: pytest.MonkeyPatch, url: str, most: int
) -> None:
    wire = Wire(most)
    assert sent(monkeypatch, wire, url, LINES_SENT)
    assert len(wire.texts) > 1
    lines = "\n".join(wire.texts).splitlines()
    assert [line for line in lines if line in LINES_SENT] == LINES_SENT
    assert lines[-1] == REF
    assert TITLE in lines[0]


@pytest.mark.parametrize("url", [DISCORD, TELEGRAM])
def test_what_fits_is_one_message(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    wire = Wire(2000)
    assert sent(monkeypatch, wire, url, LINES_SENT[:2])
    assert len(wire.texts) == 1


def test_without_its_last_part_it_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(2000, refuses=2)
    assert not sent(monkeypatch, wire, DISCORD, LINES_SENT)
    assert len(wire.texts) > 1


@pytest.mark.parametrize(("mode", "fits"), [("upstream", False), ("truncate", True)])
def test_an_address_that_says_what_to_do_is_heeded(
    monkeypatch: pytest.MonkeyPatch, mode: str, fits: bool
) -> None:
    wire = Wire(2000)
    assert sent(monkeypatch, wire, f"{DISCORD}?overflow={mode}", LINES_SENT) is fits
    assert len(wire.texts) == 1


def test_what_would_take_longer_than_a_sender_may_goes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(100_000)
    sent(monkeypatch, wire, SMS, LINES_SENT)
    assert [text.splitlines()[-1] for text in wire.texts] == [REF]


def test_what_is_mark_up_to_a_channel_comes_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(4096)
    assert sent(monkeypatch, wire, TELEGRAM, ["EXIT NSE:M&M26DEC3000CE: <rejected>"])
    (text,) = wire.texts
    assert "M&amp;M26DEC3000CE: &lt;rejected&gt;" in text


@dataclass
class Chats:
    """Those of one bot. One of them has thrown it out."""

    gone: str
    had: list[str] = field(default_factory=list)

    def send(self, request: requests.PreparedRequest, **__: object) -> requests.Response:
        said = json.loads(request.body or b"")
        chat = str(said.get("chat_id") or said.get("topic"))
        answer = requests.Response()
        answer.status_code = 403 if chat == self.gone else 200
        answer._content = b"{}"
        if chat != self.gone:
            self.had.append(chat)
        return answer


@pytest.mark.parametrize(
    ("url", "chats"),
    [(TELEGRAM + "12346/12347", ["12345", "12346", "12347"]), ("ntfy://host/a/b/c", ["a", "b", "c"])],
)
def test_a_chat_that_is_gone_has_the_others_told_once(
    monkeypatch: pytest.MonkeyPatch, url: str, chats: list[str]
) -> None:
    wire = Chats(gone=chats[1])
    monkeypatch.setattr(HTTPAdapter, "send", wire.send)
    job = {"ref": "a", "channel": url, "url": url, "page": True, "title": TITLE, "body": "said"}
    assert [_send(job), _send(job)] == [False, False]
    assert sorted(wire.had) == [chats[0], chats[2]]
    wire.gone = ""
    assert _send(job)
    assert sorted(wire.had) == chats


def test_what_is_remembered_of_messages_that_never_arrive_has_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_child, "MOST_REMEMBERED", 3)
    reached: dict[tuple[str, str], set[int]] = {}
    monkeypatch.setattr(outbox_child, "_reached", reached)
    monkeypatch.setattr(HTTPAdapter, "send", Chats(gone="b").send)
    for number in range(9):
        _send(
            {
                "ref": f"{number}",
                "channel": "1",
                "url": "ntfy://host/a/b",
                "page": True,
                "title": TITLE,
                "body": "said",
            }
        )
    assert [ref for _, ref in reached] == ["6", "7", "8"]


def a_lane(*refs: str) -> Lane:
    """All came at 0."""
    lane: Lane = queue.Queue()
    for ref in refs:
        lane.put(({"ref": ref, "channel": "1"}, 0.0))
    lane.put(None)
    return lane


def answers(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, bool | None]]:
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [(one["ref"], one["sent"]) for one in said]


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="the device is Linux's own")


@needs_full
def test_on_a_full_disk_the_answer_is_still_given_and_the_next_message_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox_child, "_send", lambda _: True)
    _run(a_lane("a", "b"), FULL, lambda: 0.0)
    assert answers(capsys) == [("a", True), ("b", True)]


def test_what_has_waited_too_long_behind_others_is_given_back_unsent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    now = [0.0]

    def slow(job: dict[str, Any]) -> bool:
        now[0] += 6.0
        return True

    monkeypatch.setattr(outbox_child, "_send", slow)
    _run(a_lane("a", "b", "c", "d"), tmp_path / "sent", lambda: now[0])
    assert answers(capsys) == [("a", True), ("b", True), ("c", None), ("d", None)]
    assert (tmp_path / "sent").read_text(encoding="utf-8").split() == ["a", "b"]


def test_on_a_full_disk_old_receipts_are_read_and_keep_nothing_from_being_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refs = [f"{number:012x}" for number in range(MOST_RECEIPTS_BYTES // 12)]
    receipts = tmp_path / "sent"
    receipts.write_text("\n".join(refs), encoding="utf-8")
    child = Child(receipts, FakeClock(), lambda *_: None)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_space)
        full.setattr(Path, "mkdir", no_space)
        assert child.receipts() == refs
        child.send([])
        child.close()
    assert child.receipts() == refs
    assert 0 < len(child.receipts()) < len(refs)  # once there is room


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
