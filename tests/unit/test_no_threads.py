"""A process that gets no thread for a moment goes on with what it can do, and tries again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from app.service.health import NO_THREAD, OK, Check, Checks, Need
from app.service.notices import Notice, Outbox
from app.telemetry.notify import OutboxNotifier
from app.telemetry.outbox_sender import Child, Sender
from tests.fake_store import FakeClock
from tests.unit.web_desk import WebDesk

WITHIN_S = 5.0
Lack = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def lack(monkeypatch: pytest.MonkeyPatch) -> Lack:
    """While it lasts no thread of ours starts."""
    started = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if isinstance(thread, threading.Timer):  # the rate limits'
            started(thread)
            return
        raise RuntimeError("can't start new thread")

    @contextmanager
    def lacking() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            yield

    return lacking


def test_a_probe_says_so_and_the_next_one_asks_again(lack: Lack) -> None:
    clock = FakeClock()
    checks = Checks((Check({"database": Need.TRAFFIC}, lambda: {"database": OK}),), clock.monotonic)
    with lack():
        found = checks(for_orders=False)
    assert (found.words, found.traffic) == ({"database": NO_THREAD}, False)
    clock.advance(1)
    assert checks(for_orders=False).words == {"database": OK}


class Box:
    """Takes notices outside of transactions only."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def join(self, _: Notice) -> bool:
        return False

    def add(self, notice: Notice) -> None:
        self.codes.append(notice.code)


@pytest.mark.parametrize("after", [[], ["needs_review"]])
def test_a_page_is_written_with_the_next_one_or_at_the_end(lack: Lack, after: list[str]) -> None:
    box = Box()
    notifier = OutboxNotifier(cast("Outbox", box), FakeClock())
    with lack():
        notifier.notify("lost_alert", "first", page=True)
        assert box.codes == []
    for code in after:
        notifier.notify(code, "another", page=True)
    assert notifier.flush(WITHIN_S)
    assert box.codes == ["lost_alert", *after]


def test_claims_are_renewed_once_there_is_a_thread(lack: Lack, tmp_path: Path) -> None:
    renewed = threading.Event()

    class Claims:
        def is_idle(self, _: object) -> bool:
            return True

        def renew(self, owner: str) -> None:
            assert owner == "me"
            renewed.set()
            child.is_sending = False

    class Busy:
        is_sending = True

        def tend(self) -> None:
            """Nothing is stuck."""

    sender = Sender(cast("Outbox", Claims()), [], tmp_path / "sent", FakeClock(), "me", pause=lambda _: None)
    child = Busy()
    sender.child = cast("Child", child)
    with lack():
        assert sender() == "nothing to tell"
    assert sender() == "nothing to tell"
    assert renewed.wait(WITHIN_S)


def test_a_child_that_nobody_would_hear_sends_nothing(lack: Lack, tmp_path: Path) -> None:
    answers: list[Any] = []
    child = Child(tmp_path / "sent", FakeClock(), lambda *said: answers.append(said))
    with lack(), pytest.raises(OSError, match="can't start new thread"):
        child.send([])
    assert not child.is_sending
    child.close()


def test_an_order_that_was_placed_is_answered_whatever_becomes_of_its_figures(
    lack: Lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = WebDesk(tmp_path)
    metrics = desk.app.extensions["ports"].watcher.metrics
    monkeypatch.setattr(metrics, "_shared", tmp_path)  # a worker of several
    sampled = threading.Event()

    def once() -> None:
        sampled.set()
        threading.Event().wait()  # and no more: the thread outlives this test

    metrics.samplers[:] = [once]
    with lack():
        answer = desk.webhook()
    assert (answer.status_code, answer.get_json()["status"]) == (200, "accepted")
    assert not sampled.is_set()
    assert desk.webhook(idempotency_key="another").status_code == 200
    assert sampled.wait(WITHIN_S)
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "request", lambda *_: 1 / 0)
        assert desk.webhook(idempotency_key="a third").status_code == 200
