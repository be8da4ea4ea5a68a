"""Every error this service raises on purpose.

    ServiceError                  `code` is stable: it stands in answers, logs and metrics
    ├── AlertRefused              the sender must change the request; no order row exists
    │   ├── MalformedBody         400  not one strict JSON object
    │   ├── InvalidAlert          400  a field is missing or wrong; `errors` names each
    │   ├── PriceUnavailable      400  the broker answered, without a price that levels can be set by
    │   ├── NotAuthenticated      401
    │   ├── NotAllowed            403
    │   ├── NotFound              404
    │   ├── KeyInUse              409  the same alert is being worked on right now
    │   ├── KeyClash              422  the same key came with another body
    │   ├── LoginRefused          422  the broker refused a code, a PIN or a refresh token
    │   ├── BodyTooLarge          413
    │   └── TooManyRequests       429
    └── Unavailable               503  nothing was sent and a re-send may work; the key is not burnt
        ├── StoreUnavailable           the database did not answer in time
        │   ├── StoreBusy              its turn did not come in time: others wrote
        │   └── CommitUnknown          the database was lost during COMMIT: nobody knows yet whether it holds
        ├── BrokerReadFailed           a quote, book or position call failed; it never means "empty" or "flat"
        ├── TokenStoreUnavailable      the stored access token cannot be read or written
        ├── NotReconciled              no reconcile pass has succeeded since this start
        ├── NoMaster                   no contract index yet
        ├── OutOfBudget                the broker's rate limit has no room in this second
        └── OutOfTime                  the request's budget ended before anything was sent

Expected "no"s of the domain are values, not errors: `Denial`, `Refused`, `NotSent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that was wrong: what was expected and what it was, never a secret's value."""

    field: str
    message: str


class ServiceError(Exception):
    """The root. Nobody raises it itself."""

    code: str = "internal"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class AlertRefused(ServiceError):
    """The sender must act: the same request will be refused again."""

    code = "refused"
    errors: tuple[FieldError, ...] = ()


class MalformedBody(AlertRefused):
    """The trader must mend the alert's message: it is not one strict JSON object."""

    code = "malformed_body"


class InvalidAlert(AlertRefused):
    """The trader must mend the named fields of the alert's message."""

    code = "invalid_alert"

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = errors


class PriceUnavailable(AlertRefused):
    """Nobody can act at once: the contract has no usable last price, so no stop could be set rightly."""

    code = "ltp_unavailable"


class NotAuthenticated(AlertRefused):
    """The trader must put the right token into the alert."""

    code = "not_authenticated"


class NotAllowed(AlertRefused):
    """The operator must widen an allowlist, a scope or a client's limit, if it should be allowed at all."""

    code = "not_allowed"


class NotFound(AlertRefused):
    """The caller asked for something that does not exist."""

    code = "not_found"


class KeyInUse(AlertRefused):
    """Nobody needs to act: the first delivery of this alert is still being worked on."""

    code = "in_progress"


class KeyClash(AlertRefused):
    """The trader must make idempotency keys unique per alert: this one came with another body before."""

    code = "key_clash"


class LoginRefused(AlertRefused):
    """The trader must log in anew, or the operator must mend the named setting."""

    code = "login_refused"


class BodyTooLarge(AlertRefused):
    """The sender must send less; MAX_CONTENT_LENGTH is the bound."""

    code = "too_large"


class TooManyRequests(AlertRefused):
    """The sender must slow down."""

    code = "rate_limited"


class Unavailable(ServiceError):
    """Nothing was sent; TradingView's own re-send, 5 s later, may find it working."""

    code = "unavailable"
    safe: ClassVar[bool] = True
    """Whether nothing can have left for the broker. Always so: whatever is in doubt is no error but a state."""


class StoreUnavailable(Unavailable):
    """The operator must look at the database: it did not answer within the request's budget."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """The operator must look at the database when it lasts: no turn came in time, because others wrote."""


class CommitUnknown(StoreUnavailable):
    """The operator must look at the database, which was lost during COMMIT: nobody knows yet whether it holds."""

    code = "commit_unknown"


class BrokerReadFailed(Unavailable):
    """A quote, order book or position call failed. The operator must act when it lasts."""

    code = "broker_unavailable"


class TokenStoreUnavailable(Unavailable):
    """The operator must look at the token store, or log in anew; the code says which (damaged, swapped, key)."""

    code = "token_store_unavailable"


class NotReconciled(Unavailable):
    """Nobody needs to act: since this start no reconcile pass has succeeded, so orders may exist that are not known.

    When it lasts, the operator must look at the broker's connection.
    """

    code = "not_reconciled"


class NoMaster(Unavailable):
    """The operator must look at the symbol master's download: there is no contract index."""

    code = "no_symbol_master"


class OutOfBudget(Unavailable):
    """Nobody needs to act: the broker's rate limit has no room in this second, and nothing was sent."""

    code = "rate_budget"


class OutOfTime(Unavailable):
    """The request's budget ended before anything was sent."""

    code = "out_of_time"
