"""Everything outside that the routes are built on, ready to use. `app/wiring/__init__.py` fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.alert import Alert
from app.domain.order import Scope
from app.service.audit_check import AuditLog, SealVault
from app.service.beside import Beside
from app.service.check import CheckReport
from app.service.clients import Clients
from app.service.config import Config
from app.service.desk import Desk
from app.service.experiments import TrialStore
from app.service.login import Login
from app.service.observe import Unwatched, Watcher
from app.service.order_feed import OrderFeed
from app.service.place_order import Answer
from app.service.ports import Broker, Clock, Contracts, Notifier, Store, Tokens
from app.service.reconcile import Pass
from app.settings import Settings
from app.web.middleware.authentication import Callers


class Place(Protocol):
    """service.place_order.PlaceOrder, its policy looked up at the call."""

    def __call__(self, alert: Alert, *, request_id: str, started: float) -> Answer: ...


Check = Callable[[Alert, str, float], CheckReport]


@dataclass(frozen=True, slots=True)
class Ports:
    settings: Settings
    clock: Clock
    store: Store
    broker: Broker
    contracts: Contracts
    scope: Scope
    tokens: Tokens
    notifier: Notifier
    reconcile: Callable[[tuple[str, str] | None], Pass]
    """One pass of this process's reconciliation, under a lease or (None) without."""
    desk: Callable[[], Desk]
    """What the verbs work with. Asks the database at its first use (the tag prefix is kept there), so that a service whose database is down
    starts, says so, and recovers by itself. Raises StoreUnavailable."""
    login: Login | None = None
    """None: the settings allow no login at the broker."""
    clients: Clients | None = None
    """None: only the settings' own tokens count."""
    audit: AuditLog | None = None
    seal_vault: SealVault | None = None
    """None: no copies of seals."""
    config: Config | None = None
    """None: the settings stand as the service was started with them."""
    trials: TrialStore | None = None
    beside: Beside | None = None
    """None: notices stand in the log only, and no runs of jobs are kept."""
    order_feed: OrderFeed | None = None
    """None: fills are found by polling alone."""
    take_call: Callable[[], str | None] = lambda: None
    """Takes one of the broker's calls, for whoever asks it past its guard; else says why there is none now."""
    watcher: Watcher = field(default_factory=Unwatched)
    """Its figures and traces."""
    dependencies: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)
    """What alerts are accepted without: by name, a call that says what is wrong with it, or None."""
    callers: Callers = field(init=False)
    """Who sends; with what it remembers of failures and tokens, one for all routes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "callers", Callers(self.settings, self.clients, self.clock))
