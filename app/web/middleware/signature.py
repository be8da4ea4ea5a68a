"""Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, by any of several secrets.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from werkzeug.datastructures import Headers

from app.domain.alert import IST
from app.errors import KeyClash, NotAuthenticated
from app.service.clients import Clients, signing_keys

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_S = 300
REMEMBER = timedelta(seconds=2 * TOLERANCE_S + 60)
"""A message stamped at the far end of the tolerance is fresh for twice that time; a minute for clocks that differ."""
MAX_SIGNATURES = 16
"""A sender in a rotation gives two."""
ID_PATTERN, SECONDS_PATTERN = r"[!-\-/-~]{1,128}", "[0-9]{1,12}"
"""An id is printable and without the dot, which ends it in what is signed."""
_ID, _SECONDS = re.compile(ID_PATTERN, re.ASCII), re.compile(SECONDS_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A message that was signed with a secret of ours, shortly before or after now."""

    id: str
    body: bytes


class Signatures:
    """Checks signed messages. Without secrets it is off, and the headers mean nothing."""

    def __init__(self, secrets: str, clients: Clients) -> None:
        self._keys = signing_keys(secrets)
        self._clients = clients

    def check(self, headers: Headers, body: bytes, now: datetime) -> SignedMessage | None:
        """The signed message; None when it bears no signature at all. Raises NotAuthenticated for a wrong one."""
        given = [headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE)]
        if not self._keys or not any(given):
            return None
        ident, stamp, signatures = given
        if not _ID.fullmatch(ident) or not _SECONDS.fullmatch(stamp):
            raise NotAuthenticated(f"expected {ID} without a dot and {TIMESTAMP} in seconds")
        if abs(now.astimezone(UTC).timestamp() - int(stamp)) > TOLERANCE_S:
            raise NotAuthenticated(f"expected {TIMESTAMP} within {TOLERANCE_S} s of now")
        content = b".".join((ident.encode(), stamp.encode(), body))
        macs = [base64.b64encode(hmac.digest(key, content, "sha256")) for key in self._keys]
        right = False
        for word in signatures.split(" ")[:MAX_SIGNATURES]:
            version, _, mac = word.partition(",")
            for own in macs:  # all of them: how long it takes says nothing about which one was right
                right |= version == "v1" and hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), own)
        if not right:
            raise NotAuthenticated(f"expected a {SIGNATURE} that is right for this id, timestamp and body")
        return SignedMessage(ident, body)

    def once(self, message: SignedMessage, client: str, header_key: str | None, now: datetime) -> None:
        """Let an id stand for one content. The same again is a re-send, which its key answers. Raises KeyClash.

        The Idempotency-Key header is part of the content, because the signature does not cover it: with another
        one a captured message would be a second order. So is the client, whom a bearer token names that the signature
        does not cover either, and the IST date, which explicit keys belong to.
        """
        parts = (
            now.astimezone(IST).date().isoformat(),
            client,
            header_key or "",
            hashlib.sha256(message.body).hexdigest(),
        )
        content = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        if self._clients.first_content(message.id, content, REMEMBER) != content:
            raise KeyClash(
                f"the {ID} came with another body, key, client or day before: a new message needs an id of its own",
                code="replayed",
            )
