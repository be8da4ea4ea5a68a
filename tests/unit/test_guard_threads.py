"""The guard under many threads: calls run side by side, one read alone is the probe, and a late one changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.domain.outcome import Accepted, Outcome
from app.errors import BrokerReadFailed
from tests.guard_desk import LOST, RESET_S, GuardDesk


def in_threads(n: int, work: Callable[[], object]) -> list[object]:
    """What `n` threads at once came to."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except BrokerReadFailed as error:
            found.append(error.code)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def waited(what: threading.Barrier | threading.Event) -> None:
    what.wait(5)


def test_guarded_calls_run_in_parallel() -> None:
    desk = GuardDesk()
    together = threading.Barrier(4, timeout=5)
    desk.broker.on["quotes"] = desk.broker.on["place"] = lambda: waited(together)
    results = in_threads(4, desk.read)
    assert len(results) == 4
    assert all(isinstance(found, dict) for found in results), "four calls were inside at once"
    assert all(isinstance(found, Accepted) for found in in_threads(4, desk.place))


def test_only_one_of_many_reads_is_the_probe() -> None:
    desk = GuardDesk()
    desk.broker.fail = {"quotes"}
    for _ in range(5):
        with pytest.raises(BrokerReadFailed):
            desk.read()
    desk.broker.fail = set()
    desk.clock.advance(RESET_S)
    before, others_done = desk.broker.calls.count("quotes"), threading.Event()
    desk.broker.on["quotes"] = lambda: waited(others_done)
    answers: list[object] = []

    def probe_or_wait() -> object:
        try:
            return desk.read()
        except BrokerReadFailed:
            answers.append("refused")
            if len(answers) == 7:
                others_done.set()
            raise

    results = in_threads(8, probe_or_wait)
    assert results.count("breaker_open") == 7
    assert desk.broker.calls.count("quotes") == before + 1
    assert desk.guard.reads.is_closed


def test_a_call_of_before_the_trip_that_fails_late_does_not_prolong_it() -> None:
    desk = GuardDesk()
    tripped_meanwhile = threading.Event()
    inside = threading.Event()

    def wait() -> None:
        desk.broker.on.pop("place", None)
        inside.set()
        assert tripped_meanwhile.wait(5)

    desk.broker.on["place"] = wait
    desk.broker.next_place = [LOST] * 6
    late: list[Outcome] = []
    thread = threading.Thread(target=lambda: late.append(desk.place()))
    thread.start()
    assert inside.wait(5)
    for _ in range(5):
        desk.place()
    desk.clock.advance(RESET_S)
    tripped_meanwhile.set()
    thread.join(5)
    assert late == [LOST]
    desk.read()
    desk.broker.next_place = []
    assert isinstance(desk.place(), Accepted)
    assert desk.told == ["breaker_open", "breaker_closed"]
