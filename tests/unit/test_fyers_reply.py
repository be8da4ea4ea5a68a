"""What comes back from the Fyers transport: every status as it is, nothing followed, nothing tried again."""

from __future__ import annotations

import gzip
from decimal import Decimal
from time import monotonic

import pytest

from app.brokers.fyers.client import Reply
from tests.unit.fyers_calls import client_of, place, within
from tests.unit.raw_peer import Caller, Peer

REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [b"302 Found", b"307 Again", b"429 Slow", b"500 No", b"503 No"])
def test_no_status_is_followed_or_tried_again(status: bytes) -> None:
    def answer(caller: Caller) -> None:
        while caller.request():
            caller.say(REDIRECT.replace(b"302 Found", status).replace(b"Loc", b"Retry-After: 1\r\nLoc"))

    with Peer(answer) as peer:
        client = client_of(peer.url)
        reply = place(client)
        with client.exchange(within()) as exchange:
            assert exchange.sdk().positions().status == reply.status
        client.close()
    assert reply.status == int(status[:3])
    assert reply.headers["retry-after"] == "1", "headers ignore case"
    assert len(peer.requests) == 2


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Peer() as peer:
        client = client_of(peer.url)
        assert place(client).status == 200
        client.close()


def test_a_reply_keeps_what_came() -> None:
    packed = gzip.compress(b'{"lp": 101.05, "n": "\xe2\x82\xb9"}')

    def answer(caller: Caller) -> None:
        caller.request()
        caller.say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
        caller.say(packed)

    before = monotonic()
    with Peer(answer) as peer:
        client = client_of(peer.url)
        reply = place(client)
        client.close()
    assert before < reply.written_at < monotonic()
    assert reply.json_or_none() == {"lp": Decimal("101.05"), "n": "\u20b9"}
    assert "lp" not in repr(reply)


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"a":NaN}', b"\xff\xfe\xfd", b"[" * 100_000])
def test_what_is_no_json_reads_as_none(body: bytes) -> None:
    assert Reply(200, {}, body).json_or_none() is None
