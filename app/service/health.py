"""Whether this process could do its work: each check bounded in time, kept for a moment, and asked by one at a time.

Nobody who asks waits for a dependency that hangs: a check runs in a thread of its own, and one that has not answered in
its time reads `slow` until it does. However many ask, each check runs once per `KEEP_S` in a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.alert import Exchange
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Scope
from app.domain.risk import TradingState
from app.domain.session import previous_trading_day
from app.errors import NoMaster, ServiceError, StoreBusy, StoreUnavailable
from app.service.desk import Desk
from app.service.loss import unwatched
from app.service.master_age import stale_files
from app.service.ports import Broker, Clock, Contracts, Store, Tokens
from app.service.ready import code_of

log = logging.getLogger(__name__)

OK, SLOW, NO_THREAD = "ok", "slow", "no thread to ask with"
CHECK_S = 0.3
"""What is well answers in a tenth of it; a probe that waited longer would itself be taken for dead."""
TURN_S = 0.15
"""For SQLite's one writer to be done: half of it, so that a busy one does not read as slow."""
KEEP_S = 2.0
"""How old a good word may be."""
KEEP_BAD_S = 0.5
"""A recovery is seen sooner than that something broke: whoever waits for it, waits for nothing else."""
OTHERS_S = 5.0
"""Who asks while a check runs takes the word before, when it is no older."""
BROKER_S = 1.0
BROKER_KEEP_S = 10.0
"""Six calls a minute of the broker's 200, also when it fails."""
MUCH_OLDER = 3
BUCKET_S = 1.0
BUCKET_KEEP_S = 15.0
"""As often as the token itself is looked for there."""
TOKEN_CODES = frozenset({"token_expired"})

Words = dict[str, str]
"""Per name `ok`, or what is wrong."""


class Need(StrEnum):
    """What depends on a check."""

    TRAFFIC = "traffic"
    ORDERS = "orders"
    NOTHING = "nothing"
    """Alerts are accepted without it; a person should know."""


@dataclass(frozen=True, slots=True)
class Check:
    """`ask` gives a word for each name. It may raise ServiceError, which is then every name's word."""

    names: Mapping[str, Need]
    ask: Callable[[], Words]
    timeout_s: float = CHECK_S
    keep_s: float = KEEP_S
    keep_bad_s: float = KEEP_BAD_S
    for_orders_only: bool = False
    """Asked only when somebody wants to know about orders; its last word is shown to all."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe is told."""

    words: Words
    traffic: bool
    orders: bool


@dataclass
class _Kept:
    """One check, its last words, and the thread that is asking now."""

    check: Check
    monotonic: Callable[[], float]
    words: Words = field(default_factory=dict)
    _at: float = 0.0
    _running: threading.Event | None = None
    _began: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> bool:
        """Ask, where it is time and nobody does. True: this caller's own, to wait for."""
        with self._lock:
            is_due = not self.words or self._age() >= self._keep_s()
            if not is_due or self._running is not None:
                return False
            running, self._began = threading.Event(), time.monotonic()
            # A daemon: one that hangs must not hold the process when it is told to stop.
            asking = threading.Thread(target=self._run, args=(running,), name="health", daemon=True)
            try:
                asking.start()
            except RuntimeError:  # the next probe tries again
                self._keep(dict.fromkeys(self.check.names, NO_THREAD))
                return False
            self._running = running
            return True

    def wait(self, *, is_mine: bool) -> None:
        """Until there are words that may be shown."""
        with self._lock:
            running = self._running
            if running is None or (not is_mine and self.words and self._age() < OTHERS_S):
                return
        if running.wait(max(0.0, self._began + self.check.timeout_s - time.monotonic())):
            return
        with self._lock:
            if self._running is running:
                self._keep(dict.fromkeys(self.check.names, SLOW))

    @property
    def shown(self) -> Words:
        """Nothing, where nobody has asked for so long that the word says no more how it is now."""
        return (
            {} if self.check.for_orders_only and self._age() > MUCH_OLDER * self.check.keep_s else self.words
        )

    def _age(self) -> float:
        return self.monotonic() - self._at

    def _keep_s(self) -> float:
        is_good = all(word == OK for word in self.words.values())
        return self.check.keep_s if is_good else self.check.keep_bad_s

    def _run(self, done: threading.Event) -> None:
        words = self._found()
        took_s = time.monotonic() - self._began
        if took_s > self.check.timeout_s:
            words = {name: SLOW if word == OK else word for name, word in words.items()}
        with self._lock:
            self._keep(words)
            self._running = None
        done.set()

    def _found(self) -> Words:
        try:
            return self.check.ask()
        except ServiceError as error:
            return dict.fromkeys(self.check.names, error.detail or error.code)
        except (
            Exception
        ) as error:  # a check that is broken is a word too, and whoever waits for it must get one
            log.exception("a health check failed")
            return dict.fromkeys(self.check.names, f"the check itself failed: {type(error).__name__}")

    def _keep(self, words: Words) -> None:
        self.words, self._at = words, self.monotonic()


class Checks:
    """All checks of a process, and what follows from them."""

    def __init__(self, checks: tuple[Check, ...], monotonic: Callable[[], float]) -> None:
        self._kept = [_Kept(check, monotonic) for check in checks]

    def __call__(self, *, for_orders: bool) -> Health:
        wanted = [k for k in self._kept if for_orders or not k.check.for_orders_only]
        mine = [kept.start() for kept in wanted]
        for kept, is_mine in zip(wanted, mine, strict=True):
            kept.wait(is_mine=is_mine)
        words: Words = {}
        needs: dict[str, Need] = {}
        for kept in self._kept:
            words |= kept.shown
            needs |= kept.check.names
        bad = {needs[name] for name, word in words.items() if word != OK}
        return Health(words, Need.TRAFFIC not in bad, not bad & {Need.TRAFFIC, Need.ORDERS})


@dataclass(frozen=True, slots=True)
class Parts:
    """What the usual checks look at. `tokens` None: the broker asks for none."""

    clock: Clock
    store: Store
    broker: Broker
    contracts: Contracts
    scope: Scope
    tokens: Tokens | None
    desk: Callable[[], Desk]
    options_files: tuple[str, ...] = ()
    """Of the symbol master; empty: whatever the index has."""


Extra = Callable[[], str | None]
"""A dependency that alerts are accepted without: None, or what is wrong with it."""


def usual_checks(parts: Parts, extra: Mapping[str, Extra]) -> Checks:
    """Those of /readyz and /readyz/orders. Only `broker` ever asks the broker, and only for whoever asks about orders."""
    traffic, orders, nothing = Need.TRAFFIC, Need.ORDERS, Need.NOTHING

    def word_of(name: str, ask: Extra) -> Callable[[], Words]:
        return lambda: {name: ask() or OK}

    checks = [
        Check(
            {"database": traffic, "migrations": traffic, "reconciled": orders, "trading_state": orders},
            lambda: database(parts),
        ),
        Check({"index": traffic, "master": orders}, lambda: master(parts)),
        # By memory alone, and so never kept: an open breaker shows in the next answer.
        Check({"breaker": orders}, lambda: {"breaker": _breaker(parts)}, keep_s=0.0, keep_bad_s=0.0),
        # Without the day's loss entries pass, as the state says; but nobody must take a limit for watched that is not.
        Check(
            {"broker": orders, "daily_loss": nothing},
            lambda: broker(parts),
            timeout_s=BROKER_S,
            keep_s=BROKER_KEEP_S,
            keep_bad_s=BROKER_KEEP_S,
            for_orders_only=True,
        ),
    ]
    if (tokens := parts.tokens) is not None:

        def token() -> Words:
            is_there = tokens.current(parts.clock.now()) is not None
            return {"token": OK if is_there else "there is no valid access token: log in at /fyers/login"}

        checks.append(Check({"token": orders}, token, timeout_s=BUCKET_S))
    for name, ask in extra.items():
        is_bucket = name == "token_store"
        wait, keep = (BUCKET_S, BUCKET_KEEP_S) if is_bucket else (CHECK_S, KEEP_S)
        checks.append(Check({name: nothing}, word_of(name, ask), timeout_s=wait, keep_s=keep))
    return Checks(tuple(checks), parts.clock.monotonic)


def database(parts: Parts) -> Words:
    """Reachable, at this version's schema, to be written to, and what it says about trading."""
    if problem := parts.store.check():
        unreadable = "unreadable, so halted"
        words = {"database": problem, "migrations": problem, "trading_state": unreadable}
        if "schema" in problem:  # it answered
            words["database"] = OK
        return words | {"reconciled": "unreadable"}
    unwritten = _unwritten(parts)
    desk = parts.desk()
    with parts.store.read(Deadline(parts.clock.monotonic() + CHECK_S)) as tx:
        state, reconciled = tx.trading_state(parts.scope), desk.reconciled(tx)
    return {
        "database": unwritten or OK,
        "migrations": OK,
        "reconciled": OK if reconciled else "no pass has succeeded since this start",
        "trading_state": OK if state is TradingState.ACTIVE else state.value,
    }


def _unwritten(parts: Parts) -> str | None:
    """A standby, a full disk and a file without permission answer each read, and every alert gets a 503."""
    try:
        parts.store.try_write(Deadline(parts.clock.monotonic() + TURN_S))
    except StoreBusy:
        return None  # others write
    except StoreUnavailable as error:
        return f"it can be read but not written: {error.detail}"
    return None


def master(parts: Parts) -> Words:
    """The contract index, and whether it is of the previous trading day."""
    try:
        age = parts.contracts.age()
    except NoMaster as error:
        return {"index": error.detail, "master": "none"}
    now = parts.clock.now()
    old = stale_files(age, now, parts.options_files)
    word = f"older than {previous_trading_day(ist_date(now))}: {', '.join(old)}"
    return {"index": OK, "master": word if old else OK}


def _breaker(parts: Parts) -> str:
    reason = parts.broker.ready()
    return OK if reason is None or code_of(reason) in TOKEN_CODES else reason


def broker(parts: Parts) -> Words:
    """Whether it answers, and says enough to watch RISK_MAX_DAILY_LOSS: by one read for both, behind the guard, where it
    counts as any other, and where a due probe of an open breaker it is too.
    """
    desk = parts.desk()
    has_limit = desk.policy.limits.max_daily_loss is not None
    if (reason := parts.broker.ready()) is not None:
        word = f"not asked: {reason}"
        return {"broker": word, "daily_loss": word if has_limit else OK}
    deadline = Deadline(parts.clock.monotonic() + BROKER_S)
    try:
        with parts.broker.exchange(deadline, once=True) as exchanger:
            if not has_limit:
                exchanger.market_open(Exchange.NSE)
                return {"broker": OK, "daily_loss": OK}
            positions = exchanger.positions()
    except ServiceError as error:
        word = error.detail or error.code
        return {"broker": word, "daily_loss": word if has_limit else OK}
    try:
        return {"broker": OK, "daily_loss": unwatched(desk, positions, deadline) or OK}
    except ServiceError as error:
        return {"broker": OK, "daily_loss": error.detail or error.code}
