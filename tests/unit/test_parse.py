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
