"""A flow of calls: which connection each goes out on, and the last check before an order."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest

from app.brokers.fyers import client as transport
from app.brokers.fyers import connection as pool
from app.brokers.fyers import sdk
from app.brokers.fyers.client import Exchange, FyersClient, Phase, TransportError
from app.domain.deadline import Deadline
from tests.unit.raw_peer import OK, Caller, Peer, answer_ok, self_signed

sdk.load()  # as at a start: its import would eat a short deadline
AUTH = "APP-100:token"


@pytest.fixture(scope="module")
def loopback_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def client_of() -> Iterator[Callable[..., FyersClient]]:
    made: list[FyersClient] = []

    def make(peer: Peer, ca_file: str | None = None) -> FyersClient:
        urls = (f"{peer.url}/api/v3", f"{peer.url}/data")
        made.append(FyersClient(*urls, connect_timeout_s=30, read_timeout_s=30, ca_file=ca_file))
        return made[-1]

    yield make
    for client in made:
        client.close()


ClientOf = Callable[..., FyersClient]


def exchange_of(client: FyersClient, seconds: float = 30) -> Exchange:
    return client.exchange(Deadline(monotonic() + seconds), AUTH)


def connections(peer: Peer) -> list[int]:
    """The connection that each request came on."""
    return [number for number, _ in peer.requests]


# --- which connection


@pytest.mark.parametrize("over_tls", [False, True])
def test_the_order_goes_out_on_the_connection_that_just_answered(
    client_of: ClientOf, loopback_tls: tuple[ssl.SSLContext, str], over_tls: bool
) -> None:
    context, ca_file = loopback_tls
    with Peer(tls=context if over_tls else None) as peer:
        with exchange_of(client_of(peer, ca_file)) as exchange:
            assert exchange.sdk().quotes({"symbols": "NSE:X"}).status == 200
            assert exchange.sdk().place_order({"qty": 1}).json_or_none() == {"s": "ok"}
        assert connections(peer) == [0, 0]


def test_reads_share_idle_connections_and_orders_do_not(client_of: ClientOf) -> None:
    with Peer() as peer:
        client = client_of(peer)
        for _ in range(3):
            with exchange_of(client) as exchange:
                exchange.sdk().positions()
        with exchange_of(client) as exchange:
            exchange.sdk().place_order({"qty": 1})
        assert connections(peer) == [0, 0, 0, 1]


def one_request(client: FyersClient) -> tuple[Exchange, Exchange]:
    """What asks for its price, and what sends its order: two conversations, with its own deadline between them."""
    now = monotonic()
    by = Deadline(now + 1.7)
    return client.exchange(by, AUTH), client.exchange(Deadline(now + 1.9), AUTH, by)


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_request_sends_its_order_on_the_connection_that_answered_its_own_read(
    client_of: ClientOf, loopback_tls: tuple[ssl.SSLContext, str], over_tls: bool
) -> None:
    context, ca_file = loopback_tls
    with Peer(tls=context if over_tls else None) as peer:
        client = client_of(peer, ca_file)
        for _ in range(2):
            reading, ordering = one_request(client)
            with reading:
                reading.sdk().quotes({"symbols": "NSE:X"})
            with ordering:
                assert ordering.sdk().place_order({"qty": 1}).json_or_none() == {"s": "ok"}
        assert connections(peer) == [0, 0, 0, 0]


def test_an_order_takes_no_connection_that_another_request_has_used_since(client_of: ClientOf) -> None:
    with Peer() as peer:
        client = client_of(peer)
        (reading, ordering), (others, _) = one_request(client), one_request(client)
        with reading:
            reading.sdk().positions()
        with others:
            others.sdk().positions()  # there is no other one, so that it takes that of the first
        with ordering:
            ordering.sdk().place_order({"qty": 1})
        assert connections(peer) == [0, 0, 1]


def test_a_read_leaves_a_connection_to_the_order_that_may_follow(client_of: ClientOf) -> None:
    with Peer() as peer:
        client = client_of(peer)
        (first, ordering), (second, _) = one_request(client), one_request(client)
        with first, second:
            first.sdk().positions()
            second.sdk().positions()
        spent = client.exchange(Deadline(monotonic() + 1), AUTH, Deadline(monotonic() + 1))
        with spent:
            spent.sdk().positions()  # the longest-waiting of the two; from here on nobody's
        with exchange_of(client) as another:
            another.sdk().positions()
        with ordering:
            ordering.sdk().place_order({"qty": 1})
        assert connections(peer) == [0, 1, 1, 1, 0]


def test_an_order_is_not_sent_on_its_read_s_connection_once_the_peer_has_closed_it(
    client_of: ClientOf,
) -> None:
    with Peer(answer_and_close) as peer:
        reading, ordering = one_request(client_of(peer))
        with reading:
            reading.sdk().positions()
        peer._threads[0].join(1)  # the peer has closed by now
        with ordering:
            assert ordering.sdk().place_order({"qty": 1}).status == 200
        assert connections(peer) == [0, 1]


def test_an_answer_of_long_ago_does_not_carry_an_order(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "JUST_ANSWERED_SECONDS", 0)
    with Peer() as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        exchange.sdk().place_order({"qty": 1})
        assert connections(peer) == [0, 1]


def close_before_second(caller: Caller) -> None:
    """Takes a second request on the first connection and closes instead of answering."""
    caller.request()
    caller.say(OK)
    if caller.number == 0:
        caller.request()
    else:
        answer_ok(caller)


def answer_and_close(caller: Caller) -> None:
    """Closes an idle connection without having said so."""
    caller.request()
    caller.say(OK)


def answer_and_say_close(caller: Caller) -> None:
    caller.request()
    caller.say(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


def test_a_read_on_a_dead_idle_connection_is_repeated_once(client_of: ClientOf) -> None:
    with Peer(close_before_second) as peer:
        client = client_of(peer)
        for _ in range(2):
            with exchange_of(client) as exchange:
                assert exchange.sdk().positions().status == 200
        assert connections(peer) == [0, 0, 1]


def test_a_read_is_repeated_only_once(client_of: ClientOf) -> None:
    def answer_only_the_first(caller: Caller) -> None:
        if caller.request() and caller.number == 0:
            caller.say(OK)
            caller.request()

    with Peer(answer_only_the_first) as peer:
        client = client_of(peer)
        with exchange_of(client) as exchange:
            exchange.sdk().positions()
        with exchange_of(client) as exchange, pytest.raises(TransportError):
            exchange.sdk().positions()
        assert connections(peer) == [0, 0, 1]


def test_a_read_that_got_part_of_an_answer_is_not_repeated(client_of: ClientOf) -> None:
    def half_a_second_answer(caller: Caller) -> None:
        caller.request()
        caller.say(OK)
        caller.request()
        caller.say(OK[:-3])

    with Peer(half_a_second_answer) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        with pytest.raises(TransportError):
            exchange.sdk().positions()
        assert connections(peer) == [0, 0]


def test_a_read_that_timed_out_is_not_repeated(client_of: ClientOf) -> None:
    def mute_second(caller: Caller) -> None:
        caller.request()
        caller.say(OK)
        caller.request()
        caller.hang()

    with Peer(mute_second) as peer, exchange_of(client_of(peer), 0.2) as exchange:
        exchange.sdk().positions()
        with pytest.raises(TransportError) as caught:
            exchange.sdk().positions()
        assert caught.value.timed_out
        assert connections(peer) == [0, 0]


def test_an_order_on_a_connection_that_dies_under_it_is_never_repeated(client_of: ClientOf) -> None:
    with Peer(close_before_second) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        with pytest.raises(TransportError) as caught:
            exchange.sdk().place_order({"qty": 1})
        assert caught.value.sent
        assert connections(peer) == [0, 0]


def test_a_peer_that_drops_one_order_on_a_used_connection_is_given_no_other_on_one(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_request_a_connection(caller: Caller) -> None:
        caller.request()
        caller.say(OK)
        caller.request()

    def flow() -> int:
        with exchange_of(client) as exchange:
            exchange.sdk().positions()
            return exchange.sdk().place_order({"qty": 1}).status

    with Peer(one_request_a_connection) as peer:
        client = client_of(peer)
        with pytest.raises(TransportError):
            flow()
        assert [flow(), flow()] == [200, 200]
        assert connections(peer) == [0, 0, 1, 2, 2, 3, 4]
        monkeypatch.setattr(pool, "DISTRUST_SECONDS", 0)  # an hour is over
        client._connections.distrust(next(iter(client._connections._distrusted_until)))
        with pytest.raises(TransportError):
            flow()


@pytest.mark.parametrize("script", [answer_and_close, answer_and_say_close])
def test_an_order_takes_a_new_connection_when_the_one_just_used_is_closed(
    client_of: ClientOf, script: Callable[[Caller], None]
) -> None:
    with Peer(script) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        peer._threads[0].join(1)  # the peer has closed by now
        assert exchange.sdk().place_order({"qty": 1}).status == 200
        assert connections(peer) == [0, 1]


def test_sixteen_threads_never_share_a_connection_or_an_answer(client_of: ClientOf) -> None:
    def echo(caller: Caller) -> None:
        while request := caller.request():
            body = request.partition(b"\r\n\r\n")[2] or b"0"
            caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with Peer(echo) as peer, ThreadPoolExecutor(16) as pool:
        client = client_of(peer)
        together = threading.Barrier(16)

        def flow(number: int) -> bool:
            together.wait(5)
            for turn in range(6):
                with exchange_of(client) as exchange:
                    exchange.sdk().positions()
                    reply = exchange.sdk().place_order({"n": number, "turn": turn})
                    if reply.json_or_none() != {"n": number, "turn": turn}:
                        return False
            return True

        assert all(pool.map(flow, range(16)))
        posts = [body for body in peer.bodies if body]
        assert len(posts) == len(set(posts)) == 96
        assert peer.connections <= 16


def test_a_forked_process_starts_with_connections_of_its_own(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer() as peer:
        client = client_of(peer)
        with exchange_of(client) as exchange:
            exchange.sdk().positions()
        inherited = client._connections
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with exchange_of(client) as exchange:
            exchange.sdk().positions()
        assert connections(peer) == [0, 1]
        client.close()
        inherited.close()


# --- the last check


class Changed(Exception):
    """What a last check may raise."""


@pytest.mark.parametrize("error", [Changed(), OSError("disk"), ValueError("x"), KeyboardInterrupt()])
def test_what_the_last_check_raises_comes_through_and_nothing_is_written(
    client_of: ClientOf, error: BaseException
) -> None:
    with Peer() as peer:

        def refuse() -> None:
            for _ in range(100):  # the connection stands before the check: TCP was accepted
                if peer.connections:
                    break
                sleep(0.01)
            assert peer.connections == 1
            raise error

        with exchange_of(client_of(peer)) as exchange, pytest.raises(type(error)) as caught:
            exchange.sdk(refuse).place_order({"qty": 1})
        assert caught.value is error
        assert not peer.requests


def test_the_last_check_comes_once_after_tls_and_before_the_first_byte(
    client_of: ClientOf, loopback_tls: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = loopback_tls
    shaken = threading.Event()
    seen: list[tuple[bool, int]] = []

    def answer(caller: Caller) -> None:
        shaken.set()  # runs once the handshake is done
        answer_ok(caller)

    with Peer(answer, context) as peer, exchange_of(client_of(peer, ca_file)) as exchange:
        exchange.sdk(lambda: seen.append((shaken.wait(1), len(peer.requests)))).place_order({"qty": 1})
    assert seen == [(True, 0)]


def test_a_check_that_takes_all_the_time_ends_in_nothing_sent(client_of: ClientOf) -> None:
    with Peer() as peer, exchange_of(client_of(peer), 0.1) as exchange:
        with pytest.raises(TransportError) as caught:
            exchange.sdk(lambda: sleep(0.12)).place_order({"qty": 1})
        assert (caught.value.phase, caught.value.bytes_written) == (Phase.BEFORE_SEND, 0)
        assert caught.value.timed_out
        assert not peer.requests


class Closing:
    """A peer whose first connection answers one read and closes when the check of the order after it begins."""

    def __init__(self) -> None:
        self.checks = 0
        self._checking = threading.Event()

    def __call__(self, caller: Caller) -> None:
        if caller.number == 0:
            caller.request()
            caller.say(OK)
            self._checking.wait(2)
        else:
            answer_ok(caller)

    def check(self, peer: Peer) -> None:
        self.checks += 1
        self._checking.set()
        peer._threads[0].join(2)


def test_an_order_whose_connection_closes_during_its_check_goes_out_on_a_new_one_after_another_check(
    client_of: ClientOf,
) -> None:
    script = Closing()
    with Peer(script) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        assert exchange.sdk(lambda: script.check(peer)).place_order({"qty": 1}).status == 200
        assert connections(peer) == [0, 1]
        assert script.checks == 2


def test_what_the_second_check_refuses_is_not_sent(client_of: ClientOf) -> None:
    script = Closing()

    def halted_meanwhile() -> None:
        script.check(peer)
        if script.checks == 2:
            raise Changed

    with Peer(script) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        with pytest.raises(Changed):
            exchange.sdk(halted_meanwhile).place_order({"qty": 1})
        assert connections(peer) == [0]


def test_an_order_whose_connection_closes_and_whose_peer_has_gone_is_not_sent(client_of: ClientOf) -> None:
    script = Closing()

    def gone() -> None:
        script.check(peer)
        peer.stop_listening()

    with Peer(script) as peer, exchange_of(client_of(peer)) as exchange:
        exchange.sdk().positions()
        with pytest.raises(TransportError) as caught:
            exchange.sdk(gone).place_order({"qty": 1})
        assert (caught.value.phase, caught.value.sent) == (Phase.CONNECT, False)
        assert script.checks == 1


# --- what a peer says unasked

UNASKED = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
READ_AHEAD_BYTES = 8192
"""What the library reads at once."""


@pytest.mark.parametrize("body_bytes", [10, 8000], ids=["in the reader's buffer", "in OpenSSL's"])
@pytest.mark.parametrize("over_tls", [False, True])
def test_no_answer_that_nobody_asked_for_is_taken_for_the_next_requests(
    client_of: ClientOf, loopback_tls: tuple[ssl.SSLContext, str], over_tls: bool, body_bytes: int
) -> None:
    """It came in one piece with the answer before it, whose connection looks quiet then."""
    context, ca_file = loopback_tls
    head = b"HTTP/1.1 200 OK\r\nX-Pad: %b\r\nContent-Length: %d\r\n\r\n"
    pad = READ_AHEAD_BYTES - len(head % (b"", body_bytes)) - body_bytes if body_bytes > 10 else 0
    answer = head % (b"x" * pad, body_bytes)

    def say_too_much(caller: Caller) -> None:
        if caller.number == 0:
            caller.request()
            caller.say(answer + b'{"s":"ok"}'.ljust(body_bytes) + UNASKED)
            caller.request()
        else:
            answer_ok(caller)

    with Peer(say_too_much, context if over_tls else None) as peer:
        with exchange_of(client_of(peer, ca_file)) as exchange:
            assert exchange.sdk().positions().json_or_none() == {"s": "ok"}
            assert exchange.sdk().place_order({"qty": 1}).status == 200
        assert connections(peer) == [0, 1]


@pytest.mark.parametrize("over_tls", [False, True])
def test_no_answer_that_nobody_asked_for_is_taken_for_the_next_reads(
    client_of: ClientOf, loopback_tls: tuple[ssl.SSLContext, str], over_tls: bool
) -> None:
    """Else that read's own answer would be the order's after it: an exit that was never answered would read as accepted."""
    context, ca_file = loopback_tls
    said = threading.Event()

    def say_it_twice(caller: Caller) -> None:
        if caller.number == 0:
            caller.request()
            caller.say(OK)
            caller.say(OK)
            said.set()
        answer_ok(caller)

    with Peer(say_it_twice, context if over_tls else None) as peer:
        with exchange_of(client_of(peer, ca_file)) as exchange:
            exchange.sdk().positions()
            assert said.wait(2)
            exchange.sdk().positions()
            exchange.sdk().place_order({"qty": 1})
        assert connections(peer) == [0, 1, 1]


def test_the_announcement_of_an_answer_is_none_and_ends_its_connection(client_of: ClientOf) -> None:
    def announce(caller: Caller) -> None:
        while caller.request():
            caller.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" if caller.number == 0 else OK)

    with Peer(announce) as peer, exchange_of(client_of(peer)) as exchange:
        with pytest.raises(TransportError) as caught:
            exchange.sdk().place_order({"qty": 1})
        assert (caught.value.phase, caught.value.sent) == (Phase.RECEIVE, True)
        exchange.sdk().positions()
        assert connections(peer) == [0, 1]
