"""The order websocket by itself, against the simulated one: what rings the bell, and what ends a connection."""

from __future__ import annotations

import base64
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import pytest

from app.brokers.fyers.order_messages import MAX_FRAMES_PER_S
from app.brokers.fyers.order_socket import OrderSocket, Pace
from tests.fyers_sim import FyersSim, nifty_ticker
from tests.simulator.clock import ist_date, real_clock
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.simulator.order_socket import OrderSocketSim
from tests.unit.raw_peer import self_signed
from tests.wire_desk import LOT

TOKEN = "first-token-of-the-order-socket"
OTHER = "other-token-of-the-order-socket"
WITHIN_S = 10.0
QUICK = Pace(
    connect=0.5, frame=0.3, ping=0.05, silence=0.4, first_wait=0.01, most_wait=0.04, steady=99, look=0.02
)
PATIENT = Pace(first_wait=0.01, most_wait=0.04, look=0.02)
"""As it is in earnest, but for the waits after a failure."""


class Heard:
    """Tokens, clock, bell and figures around one feed."""

    def __init__(self, url: str, pace: Pace = QUICK, ca_file: str | None = None) -> None:
        self.token: str | None = TOKEN
        self.words: Counter[str] = Counter()
        self.rings = 0
        self._changed = threading.Condition()
        self.feed = OrderSocket(url, "SIMAPP-200", self, self, self._count, pace, ca_file)

    def current(self, now: datetime) -> str | None:
        return self.token

    def now(self) -> datetime:
        return real_clock()

    def monotonic(self) -> float:
        return monotonic()

    def _count(self, word: str) -> None:
        with self._changed:
            self.words[word] += 1
            self._changed.notify_all()

    def ring(self) -> None:
        with self._changed:
            self.rings += 1
            self._changed.notify_all()

    def wait(self, is_so: Callable[[Heard], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: is_so(self), WITHIN_S)

    def start(self) -> None:
        self.feed.start(self.ring)

    def ended(self) -> bool:
        self.feed.stop()
        return self.feed.join(2)


@pytest.fixture
def sim() -> Iterator[FyersSim]:
    with FyersSim(tokens={TOKEN, OTHER}) as made:
        yield made


@pytest.fixture
def server(sim: FyersSim) -> Iterator[OrderSocketSim]:
    with OrderSocketSim(sim) as made:
        yield made


@pytest.fixture
def hear(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Heard]]:
    """At the end nothing of it is left running, and no line holds a token in any spelling."""
    made: list[Heard] = []

    def new(*args: Any, **more: Any) -> Heard:
        made.append(Heard(*args, **more))
        return made[-1]

    with caplog.at_level(logging.DEBUG):
        yield new
    for heard in made:
        assert heard.ended()
    text = "\n".join(f"{r.getMessage()} {r.args} {r.exc_info}" for r in caplog.records)
    for token in (TOKEN, OTHER):
        for spelt in (token, quote(token, safe=""), base64.b64encode(token.encode()).decode()[:24]):
            assert spelt not in text


def buy(sim: FyersSim) -> str:
    return sim.place_by_hand(nifty_ticker(ist_date(real_clock())), 1, LOT)


def test_it_connects_as_the_sdk_does_and_keeps_the_connection_alive(
    server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    heard = hear(server.url)
    assert heard.feed.problem() is None  # it is not meant to listen yet
    heard.start()
    assert heard.wait(lambda h: h.words["subscribed"] == 1 and h.words["pong"] >= 3)
    assert (heard.feed.connected, heard.feed.problem()) == (True, None)
    assert (server.seen["connections"], server.seen["subscribed"]) == (1, 1)
    (headers,) = server.headers
    assert headers["authorization"] == f"SIMAPP-200:{TOKEN}"
    assert [name for name, value in headers.items() if TOKEN in value] == ["authorization"]
    heard.start()  # it does already
    assert heard.ended()
    assert (heard.feed.connected, server.seen["connections"]) == (False, 1)


def test_each_change_of_an_order_rings(
    sim: FyersSim, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    heard = hear(server.url)
    heard.start()
    assert heard.wait(lambda h: h.words["subscribed"] == 1)
    before = heard.rings
    buy(sim)
    assert heard.wait(lambda h: h.words["hint"] >= 2)  # the order and its trade
    assert heard.rings == before + heard.words["hint"]


ENDS = {
    "refuse": "refused_403",
    "redirect": "protocol_error",
    "hang": "timed_out",
    "drip": "timed_out",
    "no_websocket": "protocol_error",
    "close": "closed",
    "silent": "silent",
    "half_frame": "timed_out",
    "huge_frame": "too_large",
    "fragments": "too_large",
    "bad_frame": "protocol_error",
    "expired": "refused",
}


@pytest.mark.parametrize("fault", ENDS)
def test_a_fault_ends_the_connection_and_the_next_one_rings_again(
    fault: str, sim: FyersSim, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    server.fault = fault
    heard = hear(server.url)
    heard.start()
    assert heard.wait(lambda h: h.words[ENDS[fault]] >= 2), heard.words
    server.fault = ""
    server.drop()
    assert heard.wait(lambda h: h.words["subscribed"] >= 1 and h.feed.connected), heard.words
    rings = heard.rings
    buy(sim)
    assert heard.wait(lambda h: h.rings > rings), heard.words


@pytest.mark.parametrize("fault", [*ENDS, "", "rubbish", "flood"])
def test_it_stops_at_once_whatever_the_other_side_does(
    fault: str, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    """With the bounds of earnest use, so that it is not a time-out of 0.3 s that ends it."""
    server.fault = fault
    heard = hear(server.url, PATIENT)
    heard.start()
    assert server.wait(lambda seen: seen["connections"] > 0)
    assert heard.ended()


def test_rubbish_rings_nothing_and_breaks_nothing(
    sim: FyersSim, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    server.fault = "rubbish"
    heard = hear(server.url)
    heard.start()
    assert heard.wait(lambda h: h.words["rubbish"] == 6 and h.words["other"] == 1), heard.words
    assert heard.rings == 2  # the connection, and the subscription
    buy(sim)
    assert heard.wait(lambda h: h.rings > 2)
    assert server.seen["connections"] == 1


def test_a_flood_is_read_at_a_bounded_rate(server: OrderSocketSim, hear: Callable[..., Heard]) -> None:
    server.fault = "flood"
    heard = hear(server.url, PATIENT)
    began = monotonic()
    heard.start()
    assert heard.wait(lambda h: h.words["hint"] >= 2 * MAX_FRAMES_PER_S)
    assert monotonic() - began >= 0.9


def test_a_redirect_is_not_followed_with_the_token(
    server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    server.fault = "redirect"
    heard = hear(server.url)
    heard.start()
    assert server.wait(lambda seen: seen["refused"] >= 3)
    assert heard.ended()
    assert server.seen["refused"] - heard.words["protocol_error"] <= 1


def test_a_new_login_brings_a_new_connection_and_without_one_there_is_none(
    sim: FyersSim, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    heard = hear(server.url)
    heard.token = None
    heard.start()
    assert heard.wait(lambda h: h.words["no_token"] == 1)
    assert "no valid token" in str(heard.feed.problem())
    assert server.seen["connections"] == 0
    heard.token = TOKEN
    assert heard.wait(lambda h: h.words["subscribed"] == 1)
    heard.token = OTHER
    assert heard.wait(lambda h: h.words["subscribed"] == 2)
    assert [h["authorization"] for h in server.headers] == [f"SIMAPP-200:{TOKEN}", f"SIMAPP-200:{OTHER}"]
    heard.token = None
    assert heard.wait(lambda h: h.words["new_token"] == 2 and h.words["no_token"] == 2)
    assert not heard.feed.connected
    heard.token = OTHER
    assert heard.wait(lambda h: h.words["subscribed"] == 3)
    assert server.seen["connections"] == 3


def test_a_new_login_ends_a_long_wait(
    sim: FyersSim, server: OrderSocketSim, hear: Callable[..., Heard]
) -> None:
    sim.revoke_token(TOKEN)
    heard = hear(server.url, Pace(first_wait=3600, most_wait=3600, look=0.02))
    heard.start()
    assert heard.wait(lambda h: h.words["refused_403"] == 1)
    heard.token = OTHER
    assert heard.wait(lambda h: h.words["subscribed"] == 1)


def test_each_failure_in_a_row_is_waited_for_longer_up_to_a_bound(
    server: OrderSocketSim, hear: Callable[..., Heard], caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = "close"  # it connects each time: that alone does not begin anew
    heard = hear(server.url)
    heard.start()
    assert heard.wait(lambda h: h.words["closed"] >= 6)
    assert heard.ended()
    waits = [r.args[1] for r in caplog.records if isinstance(r.args, tuple) and "next try" in r.msg]
    assert waits[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]


def test_over_tls_the_certificate_is_checked(
    sim: FyersSim, hear: Callable[..., Heard], tmp_path: Path
) -> None:
    context, ca_file = self_signed(tmp_path)
    with OrderSocketSim(sim, tls=context) as server:
        heard, mistrusting = hear(server.url, ca_file=ca_file), hear(server.url)
        heard.start()
        assert heard.wait(lambda h: h.words["subscribed"] == 1 and h.words["pong"] >= 3)
        before = heard.rings
        for _ in range(20):
            buy(sim)
        assert heard.wait(lambda h: h.words["hint"] >= 40)
        assert heard.rings >= before + 40
        mistrusting.start()
        assert mistrusting.wait(lambda h: h.words["unreachable"] >= 2), mistrusting.words
        assert len(server.headers) == 1
        assert heard.ended()


@pytest.mark.parametrize("peer", [HangAtConnect, HangAtTls])
def test_a_host_that_never_answers_is_given_up(
    peer: type[HangAtConnect | HangAtTls], hear: Callable[..., Heard]
) -> None:
    with peer() as hanging:
        heard = hear("wss" + hanging.url[hanging.url.index("://") :])
        heard.start()
        assert heard.wait(lambda h: h.words["timed_out"] >= 2), heard.words
        assert heard.ended()


def test_nobody_at_the_address(server: OrderSocketSim, hear: Callable[..., Heard]) -> None:
    heard = hear(server.url)
    server.close_port()
    heard.start()
    assert heard.wait(lambda h: h.words["unreachable"] >= 3), heard.words
    assert heard.feed.problem() == "not connected (unreachable): fills are found by polling alone"
