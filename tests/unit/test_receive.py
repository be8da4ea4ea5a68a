"""When a request has come in whole, however it is cut into pieces, and when it is too much."""

from __future__ import annotations

import io
import json

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from hypothesis import given
from hypothesis import strategies as st

from app.serving.connection import Received
from app.serving.receive import CHUNKING, MAX_HEAD_BYTES, TITLES, Incoming, Progress, refusal

LIMIT = 1000
HEAD = b"POST /webhook HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "no body": b"GET / HTTP/1.1\r\n\r\n",
    "a length": HEAD + b"Content-Length: 5\r\n\r\nabcde",
    "length in any case": HEAD + b"CONTENT-length:\t5 \r\n\r\nabcde",
    "chunks": CHUNKED + b"5\r\nabcde\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
}
OTHER = {
    "length above the limit": (HEAD + b"Content-Length: 1001\r\n\r\n", Progress.CUT),
    "a chunk above the limit": (CHUNKED + b"fff\r\n" + b"a" * 1001, Progress.CUT),
    "many chunks above it": (CHUNKED + b"64\r\n" + (b"a" * 100 + b"\r\n64\r\n") * 11, Progress.CUT),
    "all framing, no content": (
        CHUNKED + b"1;" + b"x" * 250 + b"\r\na\r\n" + (b"1;" + b"x" * 250 + b"\r\na\r\n") * 20,
        Progress.CUT,
    ),
    "no chunk": (CHUNKED + b"zz\r\n", Progress.CUT),
    "a size line without end": (CHUNKED + b"1" * 300, Progress.CUT),
    "a head without end": (b"GET /" + b"a" * MAX_HEAD_BYTES, Progress.HEAD_TOO_LARGE),
    "an unknown coding": (HEAD + b"Transfer-Encoding: foo\r\n\r\n", Progress.WHOLE),
}


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
def test_it_is_whole_with_the_last_byte_and_not_before(raw: bytes) -> None:
    incoming = Incoming(LIMIT)
    assert [incoming.add(raw[n : n + 1]) for n in range(len(raw))] == [Progress.MORE] * (len(raw) - 1) + [
        Progress.WHOLE
    ]
    assert Incoming(LIMIT).add(raw + b"GET /next") is Progress.WHOLE
    assert bytes(incoming.data) == raw


@pytest.mark.parametrize(("raw", "ends"), OTHER.values(), ids=OTHER)
def test_what_is_too_much_or_no_http_is_not_waited_for(raw: bytes, ends: Progress) -> None:
    assert Incoming(LIMIT).add(raw) is ends
    incoming = Incoming(LIMIT)
    found = Progress.MORE
    for n in range(len(raw)):
        found = incoming.add(raw[n : n + 1])
        if found is not Progress.MORE:
            break
    assert found is ends


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=80), st.integers(1, 4096))
def test_nothing_makes_it_keep_more_than_its_bounds(pieces: list[bytes], step: int) -> None:
    incoming = Incoming(LIMIT)
    raw = CHUNKED + b"".join(pieces) + b"1\r\na\r\n" * 2000
    for n in range(0, len(raw), step):
        if incoming.add(raw[n : n + step]) is not Progress.MORE:
            break
    assert len(incoming.data) <= len(CHUNKED) + CHUNKING * LIMIT + step + 1


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
def test_gunicorn_finds_the_same_end(raw: bytes) -> None:
    """Its parser reads what was received, and leaves the next request's bytes alone."""
    parser = get_parser(Config(), io.BytesIO(), ("127.0.0.1", 1))
    parser.unreader = Received(raw + b"GET /next")
    request = next(parser)
    body = request.body.read()
    assert body in (b"", b"abcde", b"abcde0123456789", b"a")
    assert parser.unreader.take_buffered() == b"GET /next"


def test_a_client_that_wants_to_be_asked_for_its_body_is_asked() -> None:
    incoming = Incoming(LIMIT)
    assert incoming.add(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") is Progress.MORE
    assert incoming.wants_continue


@pytest.mark.parametrize("status", TITLES)
def test_a_refusal_is_an_answer_that_can_be_read(status: int) -> None:
    head, _, body = refusal(status).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["status"] == status
