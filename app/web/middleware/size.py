"""The body's bound comes first: nothing reads a body that is larger."""

from __future__ import annotations

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import BodyTooLarge


def bounded_body(request: Request, limit: int) -> bytes:
    """The raw bytes, whatever the Content-Type. Raises BodyTooLarge, also when no length was announced."""
    too_large = BodyTooLarge(f"expected a body of at most {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    # A streamed body is cut at the bound without a word: one byte more shows that there was more.
    request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=False, parse_form_data=False)
    except RequestEntityTooLarge:
        raise too_large from None
    if len(body) > limit:
        raise too_large
    return body
