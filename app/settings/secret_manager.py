"""Settings that are references to Google Secret Manager: `sm://projects/PROJECT/secrets/NAME/versions/NUMBER`.

A version is a number, so that a start is repeatable and a rotation is a decision. Google's libraries load only when
a setting is such a reference.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "sm://"
_REFERENCE = re.compile(r"sm://(projects/[a-z0-9-]+/secrets/[A-Za-z0-9_-]+/versions/[1-9][0-9]*)", re.ASCII)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_HOST = "https://secretmanager.googleapis.com/v1"
TIMEOUT_S = 5.0

Fetch = Callable[[str], str]
"""The secret's text by its resource name. Raises LookupError with why, never with the value."""


def resolved(values: Mapping[str, Any], fetch: Fetch | None = None) -> dict[str, Any]:
    """The settings with every reference replaced. Raises ValueError that names each setting, never its value.

    What looks like a reference, blanks and case aside, is never taken as the secret itself: everybody can guess it.
    """
    found, problems, reader = dict(values), [], fetch
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip().lower().startswith(PREFIX):
            continue
        match = _REFERENCE.fullmatch(value.strip())
        if match is None:
            problems.append(f"{name.upper()}: expected {PREFIX}projects/…/secrets/…/versions/NUMBER")
            continue
        try:
            reader = reader or google_reader()
            found[name] = reader(match[1])
        except LookupError as error:
            problems.append(f"{name.upper()}: the secret could not be read: {error.args[0]}")
    if problems:
        raise ValueError("; ".join(problems))
    return found


def google_reader() -> Fetch:
    """Reads as whoever this process runs as. Raises LookupError without such an identity."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession
    from requests import RequestException

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise LookupError(f"no Google identity ({type(error).__name__})") from None
    session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

    def read(name: str) -> str:
        try:
            answer = session.get(f"{_HOST}/{name}:access", timeout=TIMEOUT_S)
        except (GoogleAuthError, RequestException) as error:
            raise LookupError(type(error).__name__) from None
        if answer.status_code != 200:  # noqa: PLR2004 - HTTP's OK
            raise LookupError(f"Secret Manager answered {answer.status_code}")
        return text_of(answer.json())

    return read


def text_of(answer: Any) -> str:  # noqa: ANN401 - any JSON value
    """The payload of an `:access` answer, without the line end that an editor leaves. Raises LookupError."""
    try:
        return base64.b64decode(answer["payload"]["data"], validate=True).decode().rstrip("\r\n")
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        raise LookupError("an answer without a readable payload") from None
