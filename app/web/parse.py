"""Bytes to one strict JSON object, whatever the Content-Type. Every refusal says what exactly was wrong."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from app.errors import MalformedBody
from app.service.observe import masked

MAX_DEPTH = 16
MAX_INT_DIGITS = 20
MAX_EXPONENT = 50
"""No price or quantity comes near; a larger exponent would make `Decimal` arithmetic slow or infinite."""
_CURLY = re.compile("[\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb]")
_TRAILING_COMMA = re.compile(r",\s*[}\]]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(body: bytes) -> dict[str, Any]:
    """One JSON object. Raises MalformedBody with the cause and, where there is one, the place.

    Numbers come out as int or Decimal. Refused: NaN, Infinity and numbers that overflow, duplicate keys, deep
    nesting, NUL and lone surrogates (Postgres cannot store them), any encoding but UTF-8.
    """
    text = _text(body)
    if _depth(text) > MAX_DEPTH:
        raise MalformedBody(f"expected at most {MAX_DEPTH} levels of nesting, was more")
    try:
        found = json.loads(
            text,
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_constant,
            object_pairs_hook=_no_duplicates,
        )
    except json.JSONDecodeError as error:
        raise MalformedBody(_cause(text, error)) from None
    if not isinstance(found, dict):
        kind = {list: "an array", str: "a text", type(None): "null", bool: "true or false"}.get(
            type(found), "a number"
        )
        raise MalformedBody(f"expected one JSON object in braces, was {kind}")
    _no_bad_characters(found)
    return found


def _text(body: bytes) -> str:
    if not body.strip():
        raise MalformedBody(
            "expected one JSON object, was an empty body: put the JSON into the alert's message"
        )
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in body[:4]:
        raise MalformedBody("expected UTF-8, was UTF-16 or UTF-32")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"expected UTF-8, was something else at byte {error.start}") from None
    return text.removeprefix("\ufeff").strip(" \t\r\n")


def _depth(text: str) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest


def _integer(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise MalformedBody(f"expected numbers of at most {MAX_INT_DIGITS} digits, one has {len(text)}")
    return int(text)


def _decimal(text: str) -> Decimal:
    if len(text) > 2 * MAX_INT_DIGITS:
        raise MalformedBody(
            f"expected numbers of at most {2 * MAX_INT_DIGITS} characters, one has {len(text)}"
        )
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        raise MalformedBody(f"expected a number of ordinary size, was {text}") from None
    if abs(value.adjusted()) > MAX_EXPONENT:
        raise MalformedBody(f"expected a number of ordinary size, was {text}")
    return value


def _constant(text: str) -> None:
    raise MalformedBody(f"{text} is not a JSON number: a placeholder had no value when the alert fired")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedBody(f"the field {masked(key)[:40]!r} stands twice: which one is meant?")
        found[key] = value
    return found


def _no_bad_characters(value: Any) -> None:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        if "\x00" in value or _SURROGATE.search(value):
            raise MalformedBody("a text contains a NUL or a lone surrogate, which is no character")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _no_bad_characters(key)
            _no_bad_characters(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_bad_characters(inner)


def _cause(text: str, error: json.JSONDecodeError) -> str:
    where = f"at line {error.lineno}, column {error.colno}"
    if _CURLY.search(text[max(0, error.pos - 1) : error.pos + 2]):
        return f'curly quotes {where}: write straight ones, "'
    near = text[max(0, error.pos - 2) : error.pos + 2]
    comma = next((m for m in _TRAILING_COMMA.finditer(text) if m.start() - 1 <= error.pos <= m.end()), None)
    if comma is not None:
        return f"a trailing comma {where}: take out the comma before the closing bracket"
    if "//" in near or "/*" in near:
        return f"a comment {where}: JSON has none"
    if text.startswith("{") and "{{" in text[max(0, error.pos - 2) : error.pos + 4]:
        return f"an unresolved {{{{placeholder}}}} {where}: put it in quotes, and use it in the right kind of alert"
    if error.msg == "Extra data":
        return f"something follows the object {where}: expected one JSON object and nothing else"
    if "control character" in error.msg:
        return f"a raw line break or control character inside a text {where}: write \\n"
    if not text.startswith(("{", "[")):
        return "expected one JSON object in braces, was plain text: put the JSON into the alert's message"
    return f"not valid JSON {where}: {error.msg.lower()}"
