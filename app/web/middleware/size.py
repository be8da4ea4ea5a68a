"""The body's bound comes first: nothing reads a body that is larger."""

from __future__ import annotations

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import BodyTooLarge


def bounded_body(request: Request, limit: int) -> bytes:
    """The raw bytes, whatever the Content-Type. Raises BodyTooLarge, also when no length was announced."""
    request.max_content_length = limit
    try:
        return request.get_data(cache=False, parse_form_data=False)
    except RequestEntityTooLarge:
        raise BodyTooLarge(f"expected a body of at most {limit} bytes") from None
