"""With the modules beside it the only place that names concrete classes: from settings to the ports that the service works with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from app.domain.contract import Contract
from app.domain.deadline import Deadline
from app.domain.order import Mode, Scope
from app.domain.session import use_calendar
from app.runtime import SettingsRules
from app.service.config import Config, InForce
from app.service.desk import Desk
from app.service.market import MarketHours
from app.service.ports import Broker, Clock, Contracts, Notifier, Store, Tokens
from app.service.reconcile import FirstPass, Pass, Reconcile
from app.service.records import Quote
from app.service.settle import Settle
from app.settings import Settings
from app.web.ports import Ports
from app.wiring.beside import beside_of
from app.wiring.feeds import order_feed_of, with_feed
from app.wiring.tokens import login_of, stored_tokens, token_in_gcs
from app.wiring.watching import Watching

if TYPE_CHECKING:
    from app.brokers.guard import Guard
    from app.store.engine import Database  # loads the database's library, where it is used only

ByTicker = Callable[[str, datetime], Contract | None]
"""The real contract under a ticker at a moment."""


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class NoTokens:
    """The paper exchange asks for no token."""

    def current(self, now: datetime) -> str | None:  # noqa: ARG002 - the port's signature
        return None


def scope_of(settings: Settings) -> Scope:
    """Whose money. One Fyers app belongs to one account, so the app's id names it."""
    if settings.trading_mode is Mode.PAPER:
        return Scope(Mode.PAPER, "paper")
    return Scope(Mode.LIVE, settings.fyers_app_id)


def build(settings: Settings) -> Ports:
    """Connect everything. Asks neither the database nor the network anything yet."""
    from app.brokers.fyers.symbols import IndexedContracts
    from app.store.engine import Database
    from app.store.seals_gcs import GcsSeals
    from app.store.sql import SqlStore
    from app.store.sql_audit import SqlAudit
    from app.store.sql_clients import SqlClients
    from app.store.sql_config import SqlConfig

    use_calendar(settings.own_calendar)
    clock = SystemClock()
    database = Database(settings.url, None)
    store = SqlStore(database, clock)
    watching = Watching(settings, database, clock)
    scope = scope_of(settings)
    contracts = IndexedContracts(settings.index_dir, clock)
    outbox, beside = beside_of(settings, database, clock, scope)
    notifier = watching.notifier(outbox)
    stored = stored_tokens(settings, clock, notifier) if settings.has_real_market else None
    broker = BROKERS[settings.trading_mode](
        settings, database, clock, scope, contracts.by_ticker, stored, notifier, watching.guard
    )
    broker = watching.broker(broker)
    feed = order_feed_of(settings, stored, clock, watching.watch.metrics)
    stored_config = SqlConfig(database)
    config = Config(stored_config, scope, clock, SettingsRules(settings), notifier)
    desk = FirstUse(settings, config, Parts(store, broker, contracts, clock, scope, notifier))
    return Ports(
        settings=settings,
        clock=clock,
        store=store,
        broker=broker,
        contracts=contracts,
        scope=scope,
        tokens=stored or NoTokens(),
        notifier=notifier,
        desk=desk,
        reconcile=watching.reconcile(OneReconcile(settings, desk), store),
        watcher=watching.scraped(scope, desk, contracts, stored),
        login=login_of(settings, stored, clock) if stored is not None and settings.can_log_in else None,
        clients=SqlClients(database),
        beside=beside,
        config=config,
        trials=stored_config,
        audit=SqlAudit(database),
        seal_vault=GcsSeals(bucket) if (bucket := settings.audit_gcs_bucket) else None,
        order_feed=feed,
        take_call=watching.take_call,
        dependencies=with_feed(dependencies_of(settings), feed),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """What a desk is made of, before the database was asked."""

    store: Store
    broker: Broker
    contracts: Contracts
    clock: Clock
    scope: Scope
    notifier: Notifier


class FirstUse:
    """The desk, once the database has given the deployment's tag prefix; its own first start is recorded then.

    Its policy is the runtime configuration's at the time of each call.
    """

    def __init__(self, settings: Settings, config: Config, parts: Parts) -> None:
        self._settings, self._config, self._parts = settings, config, parts
        self._first_pass = FirstPass(parts.clock, parts.scope)
        self._desk: tuple[InForce, Desk] | None = None

    def __call__(self) -> Desk:
        in_force = self._config()
        if self._desk is None:
            p = self._parts
            p.store.ensure_scope(p.scope)
            prefix = p.store.tag_prefix(self._settings.order_tag_prefix or None)
            made = Desk(
                p.store,
                p.broker,
                p.contracts,
                p.clock,
                p.scope,
                replace(in_force.policy, tag_prefix=prefix),
                p.notifier,
                market=MarketHours(p.broker, p.clock),
                reconciled=self._first_pass,
            )
            self._desk = in_force, made
        kept, desk = self._desk
        if kept is not in_force:
            desk = replace(desk, policy=replace(in_force.policy, tag_prefix=desk.policy.tag_prefix))
            self._desk = in_force, desk
        return desk


class OneReconcile:
    """The reconciliation of this process: one pass at a time, and a memory of what was read, so that an idle minute asks
    the broker little.
    """

    def __init__(self, settings: Settings, desk: Callable[[], Desk]) -> None:
        self._settle = Settle(settings.settle_min_reads, settings.settle_min_seconds)
        self._desk = desk
        self._one_at_a_time = threading.Lock()
        self._kept: Reconcile | None = None

    def __call__(self, lease: tuple[str, str] | None = None) -> Pass:
        """A whole pass. Raises ServiceError when a read failed, also when the database is not there."""
        with self._one_at_a_time:
            desk = self._desk()
            if self._kept is None:
                self._kept = Reconcile(desk, self._settle)
            self._kept.desk = desk
            self._kept.lease = lease
            return self._kept()


def dependencies_of(settings: Settings) -> dict[str, Callable[[], str | None]]:
    """What a health check asks beside the ports. Each connects at its first call."""
    found: dict[str, Callable[[], str | None]] = {}
    if settings.redis_url:
        found["redis"] = partial(_redis_problem, settings.redis_url)
    if settings.has_real_market and settings.encryption_keys and settings.token_store == "gcs":  # noqa: S105 - a place
        place = token_in_gcs(settings)

        def token_store() -> str | None:
            place.stamp()
            return None

        found["token_store"] = token_store
    return found


def _redis_problem(url: str) -> str | None:
    """On a connection of its own: it says how Redis is now, not what the budget's client remembers."""
    from redis.exceptions import RedisError

    from app.brokers.guard.redis_client import connect

    client = connect(url)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return f"it does not answer: {type(error).__name__}"
    finally:
        client.close()
    return None


def _paper(
    settings: Settings,
    database: Database,
    clock: Clock,
    scope: Scope,
    by_ticker: ByTicker,
    tokens: Tokens | None,
    notifier: Notifier,
    seen: Callable[[Guard], Broker],
) -> Broker:
    """With Fyers credentials its contracts and prices are Fyers' own; only quotes are ever asked of Fyers."""
    from app.brokers.paper.broker import PaperBroker

    if not settings.has_real_market:
        return PaperBroker(database, clock, scope.account)
    from app.brokers.fyers.broker import fyers_broker
    from app.brokers.guard import guarded

    fyers = seen(guarded(fyers_broker(settings, clock, tokens)[0], settings, clock, notifier))

    def quotes(tickers: Sequence[str], deadline: Deadline) -> dict[str, Quote]:
        with fyers.exchange(deadline) as exchange:
            return exchange.quotes(tickers)

    return PaperBroker(database, clock, scope.account, quotes=quotes, specs=by_ticker, ready=fyers.ready)


def _live(
    settings: Settings,
    _database: Database,
    clock: Clock,
    _scope: Scope,
    _by_ticker: ByTicker,
    tokens: Tokens | None,
    notifier: Notifier,
    seen: Callable[[Guard], Broker],
) -> Broker:
    from app.brokers.fyers.broker import fyers_broker
    from app.brokers.guard import guarded

    return seen(guarded(fyers_broker(settings, clock, tokens)[0], settings, clock, notifier))


NewBroker = Callable[
    [Settings, "Database", Clock, Scope, ByTicker, Tokens | None, Notifier, Callable[["Guard"], Broker]],
    Broker,
]
BROKERS: dict[Mode, NewBroker] = {Mode.PAPER: _paper, Mode.LIVE: _live}
