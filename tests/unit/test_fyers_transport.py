"""One call of the Fyers transport: its deadline, its one attempt, its byte count. Real sockets on loopback."""

from __future__ import annotations

import ssl
import threading
import traceback
from time import monotonic

import pytest

from app.brokers.fyers import resolver
from app.brokers.fyers.client import Phase, TransportError
from app.domain.deadline import Deadline
from tests.simulator.hangs import HangAtConnect, HangAtTls
from tests.unit.fyers_calls import GRACE_S, client_of, failure_of, place, within
from tests.unit.raw_peer import Caller, Peer, Script, reset_after_request, self_signed

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.quiet]

BIG = 16 * 1024 * 1024
"""Bytes: more than both ends of a loopback connection buffer."""


@pytest.fixture(scope="module")
def loopback_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    return self_signed(tmp_path_factory.mktemp("tls"))


def drip_head(caller: Caller) -> None:
    caller.request()
    caller.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500)


def drip_body(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    caller.drip(b"x" * 500)


def drip_chunks(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    caller.drip(b"1\r\nx\r\n" * 100)


def drip_continues(caller: Caller) -> None:
    caller.request()
    caller.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 40, every_s=0.001)
    caller.hang()


def hang_after_request(caller: Caller) -> None:
    caller.request()
    caller.hang()


SLOW_PEERS: list[Script] = [drip_head, drip_body, drip_chunks, drip_continues, hang_after_request]


@pytest.mark.parametrize("script", SLOW_PEERS)
def test_a_slow_answer_ends_at_the_deadline(script: Script) -> None:
    with Peer(script) as peer:
        failure = failure_of(client_of(peer.url))
    assert (failure.phase, failure.timed_out, failure.sent) == (Phase.RECEIVE, True, True)
    assert failure.bytes_written == len(peer.requests[0][1])
    assert failure.written_at is not None
    assert len(peer.requests) == 1


@pytest.mark.parametrize("script", [drip_head, drip_body, hang_after_request])
def test_a_slow_answer_over_tls_ends_at_the_deadline(
    script: Script, loopback_tls: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = loopback_tls
    with Peer(script, context) as peer:
        failure = failure_of(client_of(peer.url, ca_file))
    assert (failure.phase, failure.timed_out) == (Phase.RECEIVE, True)
    assert failure.bytes_written == len(peer.requests[0][1]), "the handshake's bytes do not count"


def test_a_hang_at_connect_writes_nothing() -> None:
    with HangAtConnect() as peer:
        failure = failure_of(client_of(peer.url))
    assert (failure.phase, failure.timed_out, failure.bytes_written) == (Phase.CONNECT, True, 0)
    assert failure.written_at is None


def test_a_hang_at_tls_writes_nothing() -> None:
    with HangAtTls() as peer:
        failure = failure_of(client_of(peer.url))
    assert (failure.phase, failure.timed_out, failure.bytes_written) == (Phase.TLS, True, 0)


def test_a_dripped_handshake_ends_at_the_deadline() -> None:
    def drip_record(caller: Caller) -> None:
        caller.drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 500)

    with Peer(drip_record) as peer:
        failure = failure_of(client_of(peer.url.replace("http:", "https:")))
    assert (failure.phase, failure.timed_out, failure.bytes_written) == (Phase.TLS, True, 0)


def test_a_name_that_is_never_resolved_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(resolver, "_ask", lambda host, port: answered.wait(2) and ())
    failure = failure_of(client_of("http://broker.invalid"))
    answered.set()
    assert (failure.phase, failure.timed_out, failure.bytes_written) == (Phase.DNS, True, 0)


def test_all_addresses_share_the_deadline_and_each_has_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with HangAtConnect() as dead, Peer() as alive:
        port = int(alive.url.rpartition(":")[2])
        found = (
            resolver._ask("127.0.0.1", dead.address[1])[0],
            resolver._ask("127.0.0.1", port)[0],
        )
        monkeypatch.setattr(resolver, "_ask", lambda host, port: found)
        started = monotonic()
        client = client_of("http://two.addresses", connect_s=0.3)
        assert place(client).status == 200
        assert 0.1 < monotonic() - started < 0.25
        client.close()
        monkeypatch.setattr(resolver, "_ask", lambda host, port: found[:1] * 5)
        assert failure_of(client_of("http://dead.addresses")).phase is Phase.CONNECT


def test_connect_and_read_time_outs_only_shorten_the_deadline() -> None:
    with HangAtConnect() as deaf, Peer(hang_after_request) as mute:
        started = monotonic()
        assert failure_of(client_of(deaf.url, connect_s=0.05), within(2)).phase is Phase.CONNECT
        assert failure_of(client_of(mute.url, read_s=0.05), within(2)).phase is Phase.RECEIVE
        assert monotonic() - started < 0.1 + 2 * GRACE_S


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with Peer() as peer:
        failure = failure_of(client_of(peer.url), within(-1))
        assert (failure.timed_out, failure.bytes_written) == (True, 0)
        assert not peer.requests


def test_a_refused_connection_writes_nothing() -> None:
    with Peer() as peer:
        pass
    failure = failure_of(client_of(peer.url))
    assert (failure.phase, failure.timed_out, failure.bytes_written) == (Phase.CONNECT, False, 0)


def test_a_blocked_write_is_counted_and_ends_at_the_deadline() -> None:
    with (
        Peer(Caller.hang) as peer,
        client_of(peer.url).exchange(within(0.4)) as exchange,
        pytest.raises(TransportError) as caught,
    ):
        exchange.request("POST", f"{peer.url}/big", body=bytes(BIG))
    assert (caught.value.phase, caught.value.timed_out) == (Phase.SEND, True)
    assert 0 < caught.value.bytes_written < BIG
    assert caught.value.written_at is None


@pytest.mark.parametrize("over_tls", [False, True])
def test_the_count_is_what_a_peer_could_read(
    loopback_tls: tuple[ssl.SSLContext, str], over_tls: bool
) -> None:
    """Over TLS a record that left in part is unreadable, and is not counted."""
    context, ca_file = loopback_tls
    ended, counted = threading.Event(), threading.Event()
    read = 0

    def read_afterwards(caller: Caller) -> None:
        nonlocal read
        ended.wait(2)
        try:
            while part := caller.sock.recv(65536):
                read += len(part)
        finally:
            counted.set()

    with Peer(read_afterwards, context if over_tls else None) as peer:
        client = client_of(peer.url, ca_file)
        with client.exchange(within(0.4)) as exchange, pytest.raises(TransportError) as caught:
            exchange.request("POST", f"{peer.url}/big", body=bytes(BIG))
        ended.set()
        assert counted.wait(2)
    assert read == caught.value.bytes_written > 0


@pytest.mark.parametrize("bad", ["line\nbreak secret", "wide \u20b9 secret"])
def test_a_header_that_cannot_be_written_sends_nothing_and_is_not_shown(bad: str) -> None:
    with Peer() as peer, client_of(peer.url).exchange(within(), bad) as exchange:
        with pytest.raises(TransportError) as caught:
            exchange.sdk().place_order({"qty": 1})
        assert caught.value.bytes_written == peer.connections == 0
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert caught.value.__context__ is None


def test_the_query_stays_out_of_the_message() -> None:
    with (
        Peer(reset_after_request) as peer,
        client_of(peer.url).exchange(within()) as exchange,
        pytest.raises(TransportError, match=r"^GET /p: .* \(receive, \d+ bytes written\)$"),
    ):
        exchange.request("GET", f"{peer.url}/p?code=secret")


def test_an_unknown_certificate_writes_nothing(loopback_tls: tuple[ssl.SSLContext, str]) -> None:
    with Peer(tls=loopback_tls[0]) as peer:
        failure = failure_of(client_of(peer.url), within(2))
    assert (failure.phase, failure.bytes_written) == (Phase.TLS, 0)
    assert "self-signed" in str(failure)


def test_a_connection_is_waited_for_no_longer_than_it_may_be() -> None:
    """So that a "nothing was sent" is said while the sender still takes it for an answer."""
    with HangAtConnect() as peer:
        client = client_of(peer.url, connect_s=1.0)
        started = monotonic()
        exchange = client.exchange(Deadline(started + 1.5), connect_by=Deadline(started + 0.2))
        with exchange, pytest.raises(TransportError) as caught:
            exchange.request("POST", f"{peer.url}/orders/sync", body=b"{}")
    assert (caught.value.phase, caught.value.bytes_written) == (Phase.CONNECT, 0)
    assert monotonic() - started < 0.2 + GRACE_S
