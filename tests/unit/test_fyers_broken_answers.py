"""Answers of Fyers' that are no answers: in doubt, and never tried again. Real sockets on loopback."""

from __future__ import annotations

import gzip

import pytest

from app.brokers.fyers.client import Phase
from app.brokers.fyers.connection import MAX_BODY_BYTES
from tests.unit.fyers_calls import client_of, failure_of, place, within
from tests.unit.raw_peer import OK, Caller, Peer, Script, reset_after_request


def close_after_request(caller: Caller) -> None:
    caller.request()


def half_a_status_line(caller: Caller) -> None:
    caller.request()
    caller.say(OK[:11])


def half_a_body(caller: Caller) -> None:
    caller.request()
    caller.say(OK[:-3])


def half_a_chunk(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nshort")


def no_http(caller: Caller) -> None:
    caller.request()
    caller.say(b"SSH-2.0-OpenSSH\r\n\r\n")


def too_large(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not caller._peer.closing.is_set():
        caller.say(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")


def bomb(caller: Caller) -> None:
    caller.request()
    packed = gzip.compress(bytes(8 * MAX_BODY_BYTES), 1)
    caller.say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
    caller.say(packed)


def no_gzip(caller: Caller) -> None:
    caller.request()
    caller.say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")


BROKEN: list[Script] = [
    reset_after_request,
    close_after_request,
    half_a_status_line,
    half_a_body,
    half_a_chunk,
    no_http,
    too_large,
    bomb,
    no_gzip,
]


@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_answer_is_in_doubt_and_never_tried_again(script: Script) -> None:
    with Peer(script) as peer:
        failure = failure_of(client_of(peer.url), within(2))
        assert (failure.phase, failure.timed_out, failure.sent) == (Phase.RECEIVE, False, True)
        assert len(peer.requests) == peer.connections == 1


def test_a_head_cut_short_is_no_json() -> None:
    def half_a_head(caller: Caller) -> None:
        caller.request()
        caller.say(OK[:30])

    with Peer(half_a_head) as peer:
        reply = place(client_of(peer.url))
    assert reply.json_or_none() is None, "http.client takes the end of the stream for the end of the head"
