"""What is known of the work in hand: its ids, what came of it, and how long each phase took.

Service code may say `phase("risk")` and `note(order_id=…)`; without a trail (in most tests, and in commands) both do
nothing. Whoever begins the work, a request or a job, begins the trail and reads it at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from app.domain.order import Order

MAX_HIDDEN = 8
"""Tokens of one request: one in its header and one in its body are usual."""
MAX_HIDDEN_CHARS = 256
"""Of each; ours have 47. A longer one is hidden by its beginning: all its spellings are kept for a while, and whoever sends
a body full of token, without knowing one, must not fill the memory with them."""


class Spans(Protocol):
    """Traces, where they are on."""

    def start(self, name: str, attributes: dict[str, str]) -> object:
        """A span below the request's or the job's begins. What this gives, unless it is None, is handed back to `end`."""

    def end(self, span: Any, error: BaseException | None) -> None: ...  # noqa: ANN401 - the tracer's own


@dataclass(slots=True)
class Trail:
    """One request's or one job's."""

    kind: str
    id: str
    order_id: str | None = None
    client: str | None = None
    contract: str | None = None
    outcome: str | None = None
    code: str | None = None
    order: Order | None = None
    """The row that an alert was answered from."""
    replayed: bool = False
    trace_id: str = ""
    span_id: str = ""
    spans: Spans | None = None
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by name, of all that ran under it."""
    hidden: tuple[str, ...] = ()
    """What came with the request and must not be shown."""
    calling: bool = False
    """Within a broker call that changes something."""
    sent: bool = False
    """Such a call has been made."""


_TRAIL: ContextVar[Trail | None] = ContextVar("trail", default=None)
_QUEUED: ContextVar[float | None] = ContextVar("queued", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


def current() -> Trail | None:
    return _TRAIL.get()


def begin(trail: Trail | None) -> None:
    """Until the next `begin` of this thread."""
    _TRAIL.set(trail)


@contextmanager
def following(trail: Trail) -> Iterator[Trail]:
    """`trail` for a block, and what was before it afterwards."""
    token = _TRAIL.set(trail)
    try:
        yield trail
    finally:
        _TRAIL.reset(token)


def queued(since: float | None) -> None:
    """When the first byte of this thread's next request came, on the machine's monotonic clock."""
    _QUEUED.set(since)


def queued_s() -> float | None:
    """How long the request has waited so far; once."""
    since = _QUEUED.get()
    if since is None:
        return None
    _QUEUED.set(None)
    return max(0.0, time.monotonic() - since)


def note(
    *,
    order_id: str | None = None,
    client: str | None = None,
    contract: str | None = None,
    outcome: str | None = None,
    code: str | None = None,
) -> None:
    """What has become known; the last word counts."""
    trail = _TRAIL.get()
    if trail is None:
        return
    trail.order_id = order_id or trail.order_id
    trail.client = client or trail.client
    trail.contract = contract or trail.contract
    trail.outcome = outcome or trail.outcome
    trail.code = code or trail.code


def refused(outcome: str, code: str) -> None:
    """An error's answer. Where an order stands behind it, the order's own state says more."""
    trail = _TRAIL.get()
    if trail is not None and trail.order is None:
        trail.outcome, trail.code = outcome, code


def answered(order: Order, *, replayed: bool) -> None:
    """An alert came to this row."""
    trail = _TRAIL.get()
    if trail is not None:
        trail.order, trail.replayed = order, replayed
        note(
            order_id=order.id,
            client=order.client,
            contract=order.ticker,
            outcome=order.status.value.lower(),
            code=order.code,
        )


def hide(secret: object) -> None:
    """A token that came with the request: no line about this request shows it."""
    trail = _TRAIL.get()
    if trail is None or not isinstance(secret, str):
        return
    head = secret[:MAX_HIDDEN_CHARS]
    if head not in trail.hidden:
        trail.hidden = (*trail.hidden, head)[-MAX_HIDDEN:]


_KEEPERS: list[Callable[..., None]] = []


def use_keeper(keep: Callable[..., None]) -> None:
    """Who keeps what must never be shown, from here on."""
    _KEEPERS[:] = [keep]


def keep_hidden(*secrets: str) -> None:
    """A living secret of this process, such as the broker's token: no line of any request or job shows it."""
    for keep in _KEEPERS:
        keep(*secrets)


SECRET = "(secret)"  # noqa: S105 - what is shown for one
_MASKS: list[Callable[[str], str]] = []


def use_mask(mask: Callable[[str], str]) -> None:
    """Who knows a living secret when a text holds one, from here on."""
    _MASKS[:] = [mask]


def masked(text: str) -> str:
    """A caller's words as they may be shown and kept: with `(secret)` where a living secret stands in them."""
    for mask in _MASKS:
        text = mask(text)
    return text


def trace_detail() -> dict[str, str]:
    """For an order's audit event, where traces are on: the reconcile that settles the order finds its trace by it."""
    trail = _TRAIL.get()
    if trail is None or trail.spans is None or not trail.trace_id:
        return {}
    return {"trace_id": trail.trace_id, "span_id": trail.span_id}


def phase(name: str, **attributes: str) -> AbstractContextManager[None]:
    """Time a block under a name. Names are words of the code, so that there are few."""
    trail = _TRAIL.get()
    return _NOTHING if trail is None else _Phase(trail, name, attributes)


def transaction(*, writing: bool) -> AbstractContextManager[None]:
    """The phase that a transaction belongs to: `commit` before the broker was called, `record` after it, `check` for
    the look right before the first byte.
    """
    trail = _TRAIL.get()
    if trail is None:
        return _NOTHING
    if trail.calling:
        return _Phase(trail, "check", {})
    if not writing:
        return _Phase(trail, "read", {})
    return _Phase(trail, "record" if trail.sent else "commit", {})


class _Phase:
    """A class, because the generator of `@contextmanager` costs twice as much, and this is on every alert's way."""

    __slots__ = ("_attributes", "_name", "_span", "_started", "_trail")

    def __init__(self, trail: Trail, name: str, attributes: dict[str, str]) -> None:
        self._trail, self._name, self._attributes = trail, name, attributes
        self._span: object = None
        self._started = 0.0

    def __enter__(self) -> None:
        spans = self._trail.spans
        if spans is not None:
            self._span = spans.start(self._name, self._attributes)
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = time.perf_counter() - self._started
        trail = self._trail
        trail.phases[self._name] = trail.phases.get(self._name, 0.0) + took
        if trail.spans is not None and self._span is not None:
            trail.spans.end(self._span, error)


class Watcher(Protocol):
    """What keeps the figures and the traces of this process."""

    def job(self, name: str) -> AbstractContextManager[None]:
        """One run of a job: its trail, how long it took, and whether it went well (it raised or not)."""

    def page(self) -> tuple[bytes, str]:
        """All figures as Prometheus reads them, and that text's content type."""

    def close(self) -> None:
        """Send what is still kept, within a bound."""


class Unwatched:
    """Nobody looks."""

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        with following(Trail("job", name)):
            yield

    def page(self) -> tuple[bytes, str]:
        return b"", "text/plain"

    def close(self) -> None:
        return None


Sampler = Callable[[], None]
"""Writes what this process knows of itself into its gauges."""
