"""Bytes to one strict object: what passes, and that each refusal names its cause."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.errors import MalformedBody
from app.web.parse import MAX_DEPTH, parse_object

REFUSED = [
    (b"", "empty body"),
    (b" \r\n", "empty body"),
    (b'{"a":NaN}', "NaN"),
    (b'{"a":-Infinity}', "Infinity"),
    (b'{"a":1e400}', "ordinary size"),
    (b'{"a":1e99999999999999999999}', "ordinary size"),
    (b'{"a":0e999999}', "ordinary size"),
    (b'{"a":' + b"9" * 21 + b"}", "digits"),
    (
        b'{"a":-' + b"9" * 5000 + b"}",
        "one has 5001",
    ),  # above Python's own limit, which would raise ValueError
    (b'{"a":1.' + b"9" * 5000 + b"}", "one has 5002"),
    (b'{"qty":75,"qty":7500}', "stands twice"),
    (b"[1]", "an array"),
    (b"null", "null"),
    (b'"x"', "a text"),
    (b"true", "true or false"),
    (b"7", "a number"),
    (b'{"a":1}{"b":2}', "follows the object"),
    (b'{"a":1,}', "trailing comma at line 1"),
    ("{“a”:1}".encode(), "curly quotes"),
    (b'{"a":1 // note\n}', "comment"),
    (b'{"a":{{ticker}}}', "placeholder"),
    (b"NIFTY Crossing 24500", "plain text"),
    ('{"a":1}'.encode("utf-16"), "UTF-16"),
    (b'{"a":"\xff"}', "UTF-8"),
    (b'{"a":"\\u0000"}', "NUL"),
    (b'{"a":"\\ud800"}', "surrogate"),
    (b'{"\\udfff":1}', "surrogate"),
    (b'{"a":[{"b":["\\ude00\\ud83d"]}]}', "surrogate"),
    (b'{"a":"\xed\xa0\x80"}', "UTF-8"),  # a surrogate as bytes
    (b'{"a":"x\ny"}', "line break"),
    (b'{"a":' + b"[" * 100_000, "nesting"),
]


@pytest.mark.parametrize(("body", "cause"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_refusal_names_its_cause(body: bytes, cause: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        parse_object(body)
    assert cause in caught.value.detail
    assert len(caught.value.detail) < 300


def test_numbers_are_exact() -> None:
    assert parse_object(b'{"a":0.1,"b":75}') == {"a": Decimal("0.1"), "b": 75}


def test_one_bom_and_trailing_white_space_are_tolerated() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a":1}\r\n') == {"a": 1}
    with pytest.raises(MalformedBody):
        parse_object(b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}')


def test_depth_is_bounded_and_brackets_in_texts_do_not_count() -> None:
    deepest = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert parse_object(deepest)
    assert parse_object(b'{"a":"' + b"[" * 100 + b'\\"["}')
    with pytest.raises(MalformedBody):
        parse_object(deepest.replace(b"[", b"[[", 1).replace(b"]", b"]]", 1))


def test_depth_counts_objects_and_arrays_alike() -> None:
    def nested(levels: int) -> bytes:
        opened = (b'{"a":', b"[")
        closed = (b"}", b"]")
        turns = [level % 2 for level in range(levels)]
        return b"".join(opened[t] for t in turns) + b"1" + b"".join(closed[t] for t in reversed(turns))

    assert parse_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 20_000):
        with pytest.raises(MalformedBody, match="nesting"):
            parse_object(nested(levels))


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}
