"""An order's HTTP 429 whose body proves nothing is in doubt as before, and its wait is heeded all the same."""

from __future__ import annotations

from time import monotonic

import pytest

from app.brokers.fyers.broker import FyersBroker
from app.domain.deadline import Deadline
from app.domain.outcome import Outcome, Refused, Unknown
from tests.fyers_sim import FyersSim
from tests.guard_desk import TICKET

REFUSED = '{"s":"error","code":-429,"message":"request limit reached"}'
PROVES_NOTHING = {
    "words of doubt": '{"s":"error","code":-429,"message":"request limit reached, please try again later"}',
    "html": "<html><body><h1>Too Many Requests</h1></body></html>",
    "no s": '{"code":-429,"message":"request limit reached"}',
    "no message": '{"s":"error","code":-429,"message":""}',
    "half": REFUSED[:20],
    "another code": '{"s":"error","code":-1,"message":"request limit reached"}',
}


def answered(
    sim: FyersSim, broker: FyersBroker, body: str, headers: dict[str, str], status: int = 429
) -> Outcome:
    sim.faults.next_order("custom", status=status, body=body, headers=headers)
    with broker.exchange(Deadline(monotonic() + 2)) as exchanger:
        return exchanger.place(TICKET, lambda: None)


@pytest.mark.parametrize("body", PROVES_NOTHING.values(), ids=PROVES_NOTHING)
def test_a_429_in_any_words_carries_its_wait(sim: FyersSim, broker: FyersBroker, body: str) -> None:
    outcome = answered(sim, broker, body, {"Retry-After": "7"})
    assert isinstance(outcome, Unknown)
    assert (outcome.rate_limited, outcome.retry_after_s) == (True, 7)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}], ids=["none", "unreadable"])
def test_a_wait_that_is_not_told_is_none(sim: FyersSim, broker: FyersBroker, headers: dict[str, str]) -> None:
    outcome = answered(sim, broker, PROVES_NOTHING["html"], headers)
    assert isinstance(outcome, Unknown)
    assert (outcome.rate_limited, outcome.retry_after_s) == (True, None)


def test_a_proven_429_is_refused_as_before(sim: FyersSim, broker: FyersBroker) -> None:
    outcome = answered(sim, broker, REFUSED, {"Retry-After": "7"})
    assert outcome == Refused("-429", "request limit reached", 7)


def test_another_status_is_no_rate_limit(sim: FyersSim, broker: FyersBroker) -> None:
    outcome = answered(sim, broker, "<html></html>", {"Retry-After": "7"}, status=503)
    assert isinstance(outcome, Unknown)
    assert (outcome.rate_limited, outcome.retry_after_s) == (False, None)
