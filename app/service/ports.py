"""What the service needs from outside, as Protocols. `app/wiring/__init__.py` alone names the classes behind them.

Units: quantities in contracts, prices in rupees (`Decimal`), times aware UTC, `Deadline`s on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from app.domain.alert import AlertKey, Exchange, ExpiryRule, OptionType, Product
from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.deadline import Deadline
from app.domain.order import Order, Scope, Side
from app.domain.risk import Denial, Exposure, TradingState
from app.domain.status import Status
from app.service.exchanger import Exchanger
from app.service.records import (
    Arrival,
    AuditEvent,
    Cap,
    Evidence,
    Holding,
    Known,
    MasterAge,
    Moved,
    OrderFilter,
    OrderPage,
    Refusal,
    Resolved,
    Stake,
    Standing,
    StateChange,
    Stranger,
)

WHOLE = Fraction(1)


class Broker(Protocol):
    """A place to send orders to."""

    name: str

    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> AbstractContextManager[Exchanger]:
        """A conversation that ends at `deadline`, whatever the other side does.

        `connect_by`: no connection is waited for longer. What it could not carry was not sent, and is said in time.
        `once`: a read that fails is not repeated.
        """

    def ready(self) -> str | None:
        """Why no order could be placed right now (a missing token, say), or None. Never asks the network."""


class Contracts(Protocol):
    """The contract index. Every call raises NoMaster when there is none."""

    def resolve(
        self,
        symbol: str,
        strike: Decimal,
        option_type: OptionType,
        expiry: ExpiryRule | date,
        exchange: Exchange | None,
        now: datetime,
    ) -> Resolved | Denial:
        """The contract that an alert means, or why there is none (codes unknown_symbol, unknown_expiry,
        unknown_strike).
        """

    def by_ticker(self, ticker: str, now: datetime) -> Contract | None:
        """The listed contract under a broker's ticker; None when none is listed or its session has ended. Raises NoMaster."""

    def age(self) -> MasterAge: ...


class Transaction(Protocol):
    """One transaction. It commits when its block ends, and rolls back when the block raises."""

    def now(self) -> datetime:
        """The database's clock, aware UTC. The same within one transaction, but for a wait for other entries (`exposure`):
        after it, it is the time after it.
        """

    def trading_state(self, scope: Scope) -> TradingState:
        """HALTED when there is no readable row."""

    def state_change(self, scope: Scope) -> StateChange:
        """The trading state with who, when and why. HALTED when there is no readable row."""

    def set_trading_state(self, scope: Scope, state: TradingState, by: str, reason: str) -> bool:
        """Set it and append to its history, in this transaction. False: it was that already (nothing is written)."""

    def reduce(self, scope: Scope, by: str, reason: str) -> bool:
        """REDUCING where trading is ACTIVE, and in the history. False: it was not; what a person has set stays."""

    def state_history(self, scope: Scope, limit: int) -> tuple[StateChange, ...]:
        """Newest first."""

    def find_key(self, scope: Scope, client: str, key: AlertKey) -> Known | None:
        """The unexpired key's order, its row locked for this transaction; None when free or expired."""

    def arrival(self, scope: Scope, client: str, key: AlertKey) -> Arrival:
        """`trading_state` and `find_key`, in one statement."""

    def claim_key(self, scope: Scope, client: str, key: AlertKey, order_id: str, ttl: timedelta) -> bool:
        """Take a free or expired key for `order_id` by one conditional statement. False: somebody has it."""

    def take_order_slot(self, scope: Scope, per_second: int) -> bool:
        """Room for one more entry in this second of the broker's rate limit; it lapses 0.1 s after this transaction's
        time. False: none is left.
        """

    def over_caps(self, scope: Scope, caps: Sequence[Cap]) -> Denial | None:
        """What `reserve` would say of a new order; nothing is counted."""

    def reserve(
        self, scope: Scope, order_id: str, caps: Sequence[Cap], *, is_new: bool = False
    ) -> Denial | None:
        """Add to every cap or to none (in a savepoint). A Denial names the cap and what would be allowed.

        `is_new`: the order has no row yet, so that it can have reserved nothing before.
        """

    def release(self, scope: Scope, order_id: str, *, unfilled: Fraction = WHOLE) -> None:
        """Give back that part of what `order_id` has reserved and is returnable; once, whoever asks how often.

        A part is rounded down: a cap may stay counted too high by less than one, never too low.
        """

    def reserve_again(self, scope: Scope, order_id: str, caps: Sequence[Cap]) -> None:
        """For an adopted order: count `caps`, and again what it had given back, above the limits if need be."""

    def insert_order(self, order: Order, event: AuditEvent) -> None: ...

    def restart_order(self, order: Order, event: AuditEvent, before: Status) -> bool:
        """Overwrite a NOT_SENT row with its next attempt. False: its state is no longer `before`."""

    def get_order(self, scope: Scope, order_id: str, *, lock: bool = False) -> Order | None: ...

    def standing(self, scope: Scope, order_id: str) -> Standing | None:
        """What the last look before a send goes by, in one statement. None: there is no such order."""

    def move(
        self, order: Order, after: Status, event: AuditEvent, change: Moved | None = None
    ) -> Order | None:
        """One conditional UPDATE from `order.status` (and its attempt) to `after`, with the event. None: the
        row is no longer in that state. Raises IllegalMoveError when the table has no such move.
        """

    def record(self, order: Order, event: AuditEvent, change: Moved | None = None) -> Order:
        """An event and perhaps changed fields without a change of state, under the row's lock. The event is kept with the
        state that the row has, whatever the caller read before.
        """

    def find_tag(self, scope: Scope, tag: str) -> Order | None:
        """The order with this tag, compared without case."""

    def known_at_broker(self, scope: Scope, broker_order_ids: Collection[str]) -> frozenset[str]:
        """Which of these ids belong to rows of ours, those included of which a row has only the bare one."""

    def orders_on(
        self, scope: Scope, ist_date: date, statuses: Collection[Status] | None = None
    ) -> tuple[Order, ...]:
        """The orders whose latest attempt was on an IST date, oldest first. None: whatever their state."""

    def orders_before(self, scope: Scope, ist_date: date, statuses: Collection[Status]) -> tuple[Order, ...]:
        """The same for all earlier dates."""

    def events_of(
        self, scope: Scope, order_ids: Collection[str], kinds: Collection[Event]
    ) -> dict[str, tuple[AuditEvent, ...]]:
        """By order, oldest first; an order without any of these kinds is not in it."""

    def note_absence(self, order: Order) -> Evidence:
        """One more fresh reading without this order (id and attempt), at this transaction's time."""

    def add_stranger(self, scope: Scope, stranger: Stranger) -> bool:
        """False: it is known already."""

    def strangers(self, scope: Scope, *, acknowledged: bool | None = None) -> tuple[Stranger, ...]: ...

    def acknowledge_strangers(self, scope: Scope, by: str) -> int:
        """A person has looked. Returns how many were open."""

    def record_pass(self, scope: Scope, began_at: datetime) -> None:
        """A whole reconcile pass has succeeded that began then (database clock); the latest beginning is kept, and
        none that lies ahead: that is from a clock that has been set right since.
        """

    def last_pass(self, scope: Scope) -> datetime | None:
        """When the latest successful reconcile pass of any instance began."""

    def purge_keys(self, scope: Scope, expired_before: datetime, limit: int) -> int:
        """Delete that many expired keys at most; returns how many."""

    def holdings(
        self, scope: Scope, client: str | None, *, before: date | None = None
    ) -> tuple[Holding, ...]:
        """Own net by our rows, per client, contract and product, zero ones left out. None: all clients.

        `before`: only fills and adjustments of earlier IST dates.
        """

    def stake(self, scope: Scope, client: str, ticker: str, product: Product) -> Stake:
        """What the client holds in one contract and product by our rows, and has under way there."""

    def exit_since(self, order: Order, at: datetime) -> str | None:
        """An exit whose alert came after `at`, and that would close what the entry `order` opens: an EXIT of its client or
        of an operator, whatever became of it, or a BUY or SELL that was denied. One that went asked for no more than it
        closed.
        """

    def tried(self, order: Order, within: timedelta) -> int:
        """Entries of the order's client and strategy within that time, the order itself counted, whatever became of
        them.
        """

    def exposure(self, order: Order, runaway: timedelta | None) -> Exposure:
        """What is open and under way beside `order`, in its account; `tried` within `runaway`, the order counted. A
        writing transaction has `entries_wait` with it.
        """

    def entries_wait(self, scope: Scope) -> None:
        """Until this transaction ends no entry of the account commits: who looks for one after this, and finds none, is
        seen by each that comes. After the entries' rows that are to be locked: an entry has its own before it waits.
        """

    def open_orders(
        self,
        scope: Scope,
        client: str | None = None,
        *,
        ticker: str | None = None,
        side: Side | None = None,
    ) -> tuple[Order, ...]:
        """Orders that may still change: EXIT_PENDING, SENDING, IN_DOUBT, NEEDS_REVIEW and working ones."""

    def orders_in(self, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
        """All orders in one contract and product that reached, or may have reached, the broker."""

    def adjust_holding(
        self,
        scope: Scope,
        client: str,
        ticker: str,
        product: Product,
        delta: int,
        reason: str,
        price: Decimal | None = None,
    ) -> None:
        """Lower (or raise) what a client holds, for what happened outside our orders; audited. `price`: of the
        fills that did it, where the trade book says.
        """

    def adjusted(self, scope: Scope, reasons: Sequence[str]) -> tuple[Holding, ...]:
        """The sums of the adjustments with any of these reasons, zero ones left out."""

    def owns_lock(self, name: str, owner: str) -> bool:
        """Whether `owner` still has the lease, its row locked for this transaction."""

    def free_lock(self, name: str, owner: str) -> None: ...


class Store(Protocol):
    """The durable memory. Every method raises StoreUnavailable when it cannot answer within the deadline.

    `None` as a deadline means the store's own default bound, never for ever.
    """

    def write(
        self, deadline: Deadline | None = None, *, queued: bool = False
    ) -> AbstractContextManager[Transaction]:
        """`queued`: one at a time in this process, for those that would only wait for one another in the database, each
        with a connection that an exit could have.
        """

    def read(self, deadline: Deadline | None = None) -> AbstractContextManager[Transaction]:
        """A transaction for reading: it takes no write lock and must not change anything."""

    def take_lock(self, name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        """Take a lease, waiting for it until the deadline; its own short transactions."""

    def try_write(self, turn: Deadline) -> None:
        """Write and keep something that nobody reads and no order waits for. Raises StoreUnavailable: nothing can be
        written; StoreBusy: that is not known, because others wrote until `turn` where only one can.
        """

    def ensure_scope(self, scope: Scope) -> None:
        """First start of a (mode, account): its trading state ACTIVE. A later start changes nothing."""

    def tag_prefix(self, configured: str | None) -> str:
        """The deployment's tag prefix: made once and kept, or the configured one, which must then agree."""

    def list_orders(self, scope: Scope, wanted: OrderFilter) -> OrderPage: ...

    def events(self, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]: ...

    def record_refusal(self, scope: Scope, refusal: Refusal, deadline: Deadline | None = None) -> None:
        """Keep the newest refusals, bounded in number; never on the way of an answer's success."""

    def list_refusals(self, scope: Scope, limit: int) -> tuple[Refusal, ...]: ...

    def check(self) -> str | None:
        """Why the store is not usable (unreachable, migrations not at head), or None."""


class Tokens(Protocol):
    """The broker's access token."""

    def current(self, now: datetime) -> str | None:
        """The token to use at `now`; None when there is none or it has expired."""


class Notifier(Protocol):
    """Tells a person. Never raises, never on the way of an answer."""

    def notify(self, code: str, message: str, *, page: bool = False) -> None: ...


class Clock(Protocol):
    """The time of this machine. What other instances must agree on goes by the database's clock instead."""

    def now(self) -> datetime:
        """Aware UTC."""

    def monotonic(self) -> float:
        """Seconds on the clock that Deadlines are on."""
