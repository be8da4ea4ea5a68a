"""What may go wrong, by name, and on which endpoint.

A bare name means: the operation was NOT carried out. `<name>_created` means it was carried out first.
`late_<name>` means it was accepted, and appears in the book `appear_after` seconds later by the simulator's
clock; `late` alone is answered properly. On reads only the answer counts.

| name | answer |
|---|---|
| no_ack | 200, `s: ok`, `code: 201`, no id (D) |
| html_200, cloudflare_403, html_502, html_503 | an HTML page with that status |
| http_500 | 500 with a JSON error |
| truncated | the proper answer cut in half, Content-Length fitting the half |
| short_body | the same half, Content-Length promising all of it, then the connection closes |
| hang | nothing for `seconds`, then the connection closes; ends early on `release_hangs()` and on close |
| reset | RST in place of an answer; `reset_unread`: already before the body was read |
| disconnect | FIN in place of an answer |
| rate_429 | 429 with Retry-After and X-Retry-After-Ms |
| auth_401 | -16 (-15 on /data) |
| algo_restricted, bad_symbol, rms_reject | -50, -50, -99 as 400; `rms_reject_with_id`: a row of status 5 too, and its id |
| custom | `status`, `body` and `headers` as given; `custom_created` |

These only change the delivery, the operation is carried out: slow (waits `seconds`, THEN acts and answers),
slow_created (acts, waits, answers), drip_body and drip_headers (one byte per `seconds`), close_after (the
server closes the kept-alive connection after the answer, without having said so). `empty` makes GET /orders,
/tradebook and /positions answer with no rows.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import deque
from dataclasses import dataclass, field

ORDER_POST = "POST /orders/sync"

_BARE = [
    "no_ack",
    "html_200",
    "cloudflare_403",
    "html_502",
    "html_503",
    "http_500",
    "truncated",
    "short_body",
    "hang",
    "reset",
    "disconnect",
    "custom",
]
_DELIVERY = frozenset({"slow", "drip_body", "drip_headers", "close_after", "empty"})
_REFUSALS = frozenset({"rate_429", "auth_401", "algo_restricted", "bad_symbol", "rms_reject", "reset_unread"})
NAMES: frozenset[str] = frozenset(
    {*_BARE, *(f"{n}_created" for n in _BARE), *(f"late_{n}" for n in _BARE)}
    | _DELIVERY
    | _REFUSALS
    | {"slow_created", "rms_reject_with_id", "late"}
)

_SECONDS_BY_BASE = {"hang": 30.0, "slow": 5.0, "drip_body": 0.05, "drip_headers": 0.05, "rate_429": 1.0}
LATE_DEFAULT_S = 5.0


@dataclass(frozen=True)
class Fault:
    """One fault in force. `seconds` is what its name says; `appear_after` delays the created order's row."""

    name: str
    seconds: float
    appear_after: float = 0.0
    status: int = 500
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def base(self) -> str:
        """The name without `late_` and `_created`."""
        return self.name.removeprefix("late_").removesuffix("_created")

    @property
    def carries_out(self) -> bool:
        """Whether a write is carried out although the answer is spoilt."""
        made = self.name.endswith("_created") or self.name.startswith("late")
        return made or self.name == "rms_reject_with_id" or self.base in _DELIVERY


def make_fault(
    name: str,
    *,
    seconds: float | None = None,
    appear_after: float | None = None,
    status: int = 500,
    body: str = "",
    headers: dict[str, str] | None = None,
) -> Fault:
    """A fault by its name; ValueError for a name that does not exist."""
    if name not in NAMES:
        raise ValueError(f"expected one of {sorted(NAMES)}, was {name!r}")
    base = name.removeprefix("late_").removesuffix("_created")
    late = LATE_DEFAULT_S if name.startswith("late") else 0.0
    return Fault(
        name,
        _SECONDS_BY_BASE.get(base, 0.0) if seconds is None else seconds,
        late if appear_after is None else appear_after,
        status,
        body,
        tuple((headers or {}).items()),
    )


@dataclass
class Faults:
    """One-shot queues go before sticky faults; endpoints are `METHOD /path`, and may hold `*`."""

    _queued: dict[str, deque[Fault]] = field(default_factory=dict)
    _sticky: dict[str, Fault] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_order(
        self,
        name: str,
        n: int = 1,
        *,
        seconds: float | None = None,
        appear_after: float | None = None,
        status: int = 500,
        body: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """The next n order POSTs meet this fault."""
        fault = make_fault(
            name, seconds=seconds, appear_after=appear_after, status=status, body=body, headers=headers
        )
        self.queue(ORDER_POST, fault, n)

    def next(self, endpoint: str, name: str, n: int = 1, *, seconds: float | None = None) -> None:
        """The next n requests to an endpoint meet this fault."""
        self.queue(endpoint, make_fault(name, seconds=seconds), n)

    def set(self, endpoint: str, name: str, *, seconds: float | None = None) -> None:
        """Every request to an endpoint meets this fault until `clear`."""
        self.hold(endpoint, make_fault(name, seconds=seconds))

    def queue(self, endpoint: str, fault: Fault, n: int = 1) -> None:
        """As `next`, with a fault made by `make_fault`."""
        with self._lock:
            self._queued.setdefault(endpoint, deque()).extend([fault] * n)

    def hold(self, endpoint: str, fault: Fault) -> None:
        """As `set`, with a fault made by `make_fault`."""
        with self._lock:
            self._sticky[endpoint] = fault

    def clear(self, endpoint: str | None = None) -> None:
        """Forget what is queued and set, for one endpoint or for all."""
        with self._lock:
            for table in (self._queued, self._sticky):
                if endpoint is None:
                    table.clear()
                else:
                    table.pop(endpoint, None)

    def take(self, endpoint: str) -> Fault | None:
        """The fault that this request meets; a one-shot is used up."""
        with self._lock:
            for pattern, waiting in self._queued.items():
                if waiting and fnmatch.fnmatchcase(endpoint, pattern):
                    return waiting.popleft()
            for pattern, fault in self._sticky.items():
                if fnmatch.fnmatchcase(endpoint, pattern):
                    return fault
        return None

    def pending(self) -> dict[str, list[str]]:
        """Names still queued or set, by endpoint."""
        with self._lock:
            names = {
                endpoint: [f.name for f in waiting] for endpoint, waiting in self._queued.items() if waiting
            }
            for endpoint, fault in self._sticky.items():
                names.setdefault(endpoint, []).append(f"{fault.name} (set)")
        return names
