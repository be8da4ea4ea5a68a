"""The transaction of the working store in memory, and what it works on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from app.domain.alert import ADMIN_CLIENT, Action, AlertKey, Product
from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Purpose, Scope, Side
from app.domain.risk import Denial, Exposure, TradingState
from app.domain.status import UNSETTLED, WORKING, Status, check_move
from app.service.holding import bare
from app.service.ports import WHOLE, Clock
from app.service.records import (
    SENT_AGAIN_WITHIN,
    Arrival,
    AuditEvent,
    Cap,
    Evidence,
    Holding,
    Known,
    Moved,
    Stake,
    Standing,
    StateChange,
    Stranger,
)
from tests.fake_data import Claim, Data, Reserved, changed

OPEN = UNSETTLED | WORKING | {Status.EXIT_PENDING, Status.NEEDS_REVIEW}
NEVER_SENT = {Status.DENIED, Status.EXIT_PENDING, Status.NOT_SENT}


class FakeTransaction:
    def __init__(self, data: Data, clock: Clock, *, writable: bool) -> None:
        self._data, self._clock, self._writable = data, clock, writable

    def now(self) -> datetime:
        return self._clock.now()

    def trading_state(self, scope: Scope) -> TradingState:
        return self._data.states.get(scope, TradingState.HALTED)

    def state_change(self, scope: Scope) -> StateChange:
        state = self._data.states.get(scope)
        if state is None:
            return StateChange(TradingState.HALTED, "", "no readable trading state", self.now())
        said = next(iter(self.state_history(scope, 1)), StateChange(state, "", "", self.now()))
        return replace(said, state=state)

    def set_trading_state(self, scope: Scope, state: TradingState, by: str, reason: str) -> bool:
        self._must_write()
        if self._data.states.get(scope) is state:
            return False
        self._data.states[scope] = state
        self._data.history.append((scope, StateChange(state, by, reason, self.now())))
        return True

    def reduce(self, scope: Scope, by: str, reason: str) -> bool:
        if self._data.states.get(scope) is not TradingState.ACTIVE:
            return False
        return self.set_trading_state(scope, TradingState.REDUCING, by, reason)

    def state_history(self, scope: Scope, limit: int) -> tuple[StateChange, ...]:
        return tuple(change for s, change in reversed(self._data.history) if s == scope)[:limit]

    def find_key(self, scope: Scope, client: str, key: AlertKey) -> Known | None:
        claim = self._data.keys.get((scope, client, key.digest))
        if claim is None or claim.until <= self.now() or claim.order_id not in self._data.orders:
            return None
        return Known(self._data.orders[claim.order_id], claim.body_hash)

    def arrival(self, scope: Scope, client: str, key: AlertKey) -> Arrival:
        return Arrival(self.trading_state(scope), self.find_key(scope, client, key))

    def claim_key(self, scope: Scope, client: str, key: AlertKey, order_id: str, ttl: timedelta) -> bool:
        self._must_write()
        claim = self._data.keys.get((scope, client, key.digest))
        if claim is not None and claim.until > self.now():
            return False
        until = self.now() + ttl
        self._data.keys[scope, client, key.digest] = Claim(order_id, key.body_hash, until)
        return True

    def take_order_slot(self, scope: Scope, per_second: int) -> bool:
        self._must_write()
        used = [at for at in self._data.slots.get(scope, []) if self.now() - at < timedelta(seconds=1.1)]
        self._data.slots[scope] = [*used, self.now()] if len(used) < per_second else used
        return len(used) < per_second

    def over_caps(self, scope: Scope, caps: Sequence[Cap]) -> Denial | None:
        for cap in caps:
            used = self._data.caps.get((scope, cap.name, cap.window), 0)
            if used + cap.amount > cap.limit:
                return Denial(f"cap_{cap.name}", f"{cap.name}: {used} of {cap.limit} used")
        return None

    def reserve(
        self, scope: Scope, order_id: str, caps: Sequence[Cap], *, is_new: bool = False
    ) -> Denial | None:
        self._must_write()
        rows = self._data.reserved.get(order_id, [])
        held = {(r.cap.name, r.cap.window) for r in rows if not r.released}
        left = {(r.cap.name, r.cap.window): r.cap.amount - r.returned for r in rows}
        missing = [c for c in caps if (c.name, c.window) not in held]
        for cap in missing:
            used = self._data.caps.get((scope, cap.name, cap.window), 0)
            if used + cap.amount - left.get((cap.name, cap.window), 0) > cap.limit:
                return Denial(f"cap_{cap.name}", f"{cap.name}: {used} of {cap.limit} used")
        for cap in missing:
            self._count(scope, cap, cap.amount - left.get((cap.name, cap.window), 0))
        again = {(c.name, c.window) for c in missing}
        kept = [r for r in rows if (r.cap.name, r.cap.window) not in again]
        self._data.reserved[order_id] = kept + [Reserved(c) for c in missing]
        return None

    def release(self, scope: Scope, order_id: str, *, unfilled: Fraction = WHOLE) -> None:
        self._must_write()
        for row in self._data.reserved.get(order_id, []):
            if row.cap.returnable and not row.released:
                row.released, row.returned = True, int(row.cap.amount * unfilled)
                self._count(scope, row.cap, -row.returned)

    def reserve_again(self, scope: Scope, order_id: str, caps: Sequence[Cap]) -> None:
        self._must_write()
        rows = self._data.reserved.setdefault(order_id, [])
        for row in rows:
            if row.returned:
                self._count(scope, row.cap, row.returned)
                row.released, row.returned = False, 0
        had = {(r.cap.name, r.cap.window) for r in rows}
        for cap in caps:
            if (cap.name, cap.window) not in had:
                self._count(scope, cap, cap.amount)
                rows.append(Reserved(cap))

    def _count(self, scope: Scope, cap: Cap, amount: int) -> None:
        slot = (scope, cap.name, cap.window)
        self._data.caps[slot] = self._data.caps.get(slot, 0) + amount

    def insert_order(self, order: Order, event: AuditEvent) -> None:
        self._must_write()
        if order.id in self._data.orders:
            raise AssertionError(f"expected a new id, was {order.id} again")
        self._keep(order, event)

    def restart_order(self, order: Order, event: AuditEvent, before: Status) -> bool:
        self._must_write()
        check_move(before, order.status)
        row = self._data.orders.get(order.id)
        last = order.attempt if before is Status.EXIT_PENDING else order.attempt - 1
        if row is None or row.status is not before or row.attempt > last:
            return False
        self._keep(replace(order, created_at=row.created_at), event)
        return True

    def get_order(self, scope: Scope, order_id: str, *, lock: bool = False) -> Order | None:
        order = self._data.orders.get(order_id)
        return order if order is not None and order.scope == scope else None

    def standing(self, scope: Scope, order_id: str) -> Standing | None:
        order = self.get_order(scope, order_id)
        return None if order is None else Standing(order.status, order.fence, self.trading_state(scope))

    def move(
        self, order: Order, after: Status, event: AuditEvent, change: Moved | None = None
    ) -> Order | None:
        self._must_write()
        check_move(order.status, after)
        row = self._data.orders[order.id]
        if (row.status, row.attempt) != (order.status, order.attempt):
            return None
        return self._keep(replace(changed(row, change), status=after), event)

    def record(self, order: Order, event: AuditEvent, change: Moved | None = None) -> Order:
        self._must_write()
        row = changed(self._data.orders[order.id], change)
        return self._keep(row, event if event.status is None else replace(event, status=row.status))

    def find_tag(self, scope: Scope, tag: str) -> Order | None:
        rows = (o for o in self._data.orders.values() if o.scope == scope)
        return next((o for o in rows if o.tag.upper() == tag.upper()), None)

    def known_at_broker(self, scope: Scope, broker_order_ids: Collection[str]) -> frozenset[str]:
        ours = {o.broker_order_id for o in self._data.orders.values() if o.scope == scope}
        return frozenset(i for i in broker_order_ids if {i, bare(i)} & ours)

    def orders_on(
        self, scope: Scope, ist_date: date, statuses: Collection[Status] | None = None
    ) -> tuple[Order, ...]:
        rows = self._data.orders.values()
        on = (o for o in rows if o.scope == scope and o.ist_date == ist_date)
        return tuple(o for o in on if statuses is None or o.status in statuses)

    def orders_before(self, scope: Scope, ist_date: date, statuses: Collection[Status]) -> tuple[Order, ...]:
        rows = self._data.orders.values()
        return tuple(o for o in rows if o.scope == scope and o.ist_date < ist_date and o.status in statuses)

    def events_of(
        self, scope: Scope, order_ids: Collection[str], kinds: Collection[Event]
    ) -> dict[str, tuple[AuditEvent, ...]]:
        ours = [i for i in order_ids if self.get_order(scope, i) is not None]
        said = {i: tuple(e for e in self._data.events.get(i, ()) if e.event in kinds) for i in ours}
        return {i: events for i, events in said.items() if events}

    def note_absence(self, order: Order) -> Evidence:
        self._must_write()
        place, now = (order.id, order.attempt), self.now()
        had = self._data.absences.get(place, Evidence(0, now, now))
        self._data.absences[place] = replace(had, reads=had.reads + 1, last_at=now)
        return self._data.absences[place]

    def add_stranger(self, scope: Scope, stranger: Stranger) -> bool:
        self._must_write()
        place = (scope, stranger.broker_order_id)
        return self._data.strangers.setdefault(place, stranger) is stranger

    def strangers(self, scope: Scope, *, acknowledged: bool | None = None) -> tuple[Stranger, ...]:
        rows = [s for (where, _), s in self._data.strangers.items() if where == scope]
        rows = [s for s in rows if acknowledged in (None, s.acknowledged_by is not None)]
        return tuple(sorted(rows, key=lambda s: (s.placed_at, s.broker_order_id)))

    def acknowledge_strangers(self, scope: Scope, by: str) -> int:
        self._must_write()
        seen = self.strangers(scope, acknowledged=False)
        for s in seen:
            self._data.strangers[scope, s.broker_order_id] = replace(s, acknowledged_by=by)
        return len(seen)

    def record_pass(self, scope: Scope, began_at: datetime) -> None:
        self._must_write()
        before = self._data.passes.get(scope, began_at)
        self._data.passes[scope] = began_at if before > self.now() else max(began_at, before)

    def last_pass(self, scope: Scope) -> datetime | None:
        return self._data.passes.get(scope)

    def purge_keys(self, scope: Scope, expired_before: datetime, limit: int) -> int:
        self._must_write()
        rows = [
            (c.until, k) for k, c in self._data.keys.items() if k[0] == scope and c.until < expired_before
        ]
        old = [key for _, key in sorted(rows, key=lambda row: row[0])[:limit]]
        for key in old:
            del self._data.keys[key]
        return len(old)

    def holdings(
        self, scope: Scope, client: str | None, *, before: date | None = None
    ) -> tuple[Holding, ...]:
        nets: dict[tuple[str, str, Product], int] = {}
        rows = [
            (Holding(o.client, o.ticker, o.product, o.side.sign * o.filled_quantity), o.ist_date)
            for o in self._data.orders.values()
            if o.scope == scope
        ]
        rows += [(h, ist_date(at)) for where, h, at in self._data.adjusted if where == scope]
        for h, day in rows:
            if before is None or day < before:
                key = (h.client, h.ticker, h.product)
                nets[key] = nets.get(key, 0) + h.net_quantity
        return tuple(Holding(*key, net) for key, net in nets.items() if net and client in (None, key[0]))

    def stake(self, scope: Scope, client: str, ticker: str, product: Product) -> Stake:
        here = [h for h in self.holdings(scope, client) if (h.ticker, h.product) == (ticker, product)]
        entries = [o for o in self.open_orders(scope, client, ticker=ticker) if o.purpose is Purpose.ENTRY]
        exits = self.open_orders(scope, ADMIN_CLIENT, ticker=ticker)
        return Stake(
            sum(h.net_quantity for h in here),
            frozenset(o.side for o in entries if o.product is product),
            frozenset(
                o.side
                for o in self._data.orders.values()
                if (o.scope, o.client, o.ticker, o.product) == (scope, client, ticker, product)
                and (o.purpose, o.status) == (Purpose.ENTRY, Status.NOT_SENT)
                and (o.created_at is None or o.created_at > self.now() - SENT_AGAIN_WITHIN)
            ),
            any(o.purpose is Purpose.EXIT and o.product is product for o in exits),
        )

    def exit_since(self, order: Order, at: datetime) -> str | None:
        here, whose = (order.scope, order.ticker, order.product), (order.client, ADMIN_CLIENT)
        found = [
            (o.created_at, o.id)
            for o in self._data.orders.values()
            if (o.scope, o.ticker, o.product) == here and o.client in whose and o.purpose is Purpose.EXIT
            if o.action is Action.EXIT or (o.side, o.status) == (order.side.opposite, Status.DENIED)
            if o.created_at
        ]
        return min(((came, ident) for came, ident in found if came > at), default=(at, None))[1]

    def tried(self, order: Order, within: timedelta) -> int:
        def is_one(o: Order) -> bool:
            who = (o.scope, o.client, o.strategy, o.purpose)
            recent = o.created_at is not None and o.created_at > self.now() - within
            return recent and who == (order.scope, order.client, order.strategy, Purpose.ENTRY)

        return 1 + len([o for o in self._data.orders.values() if o.id != order.id and is_one(o)])

    def entries_wait(self, scope: Scope) -> None:
        """It is the only writer."""

    def exposure(self, order: Order, runaway: timedelta | None) -> Exposure:
        rows = [o for o in self._data.orders.values() if o.scope == order.scope and o.id != order.id]
        live: dict[tuple[str, Product], list[Order]] = {}
        for row in rows:
            if row.session_end > self.now():
                live.setdefault((row.ticker, row.product), []).append(row)
        lots = value = none = Decimal(0)
        for place, here in live.items():
            net = sum(
                h.net_quantity for h in self.holdings(order.scope, None) if (h.ticker, h.product) == place
            )
            waiting = [o for o in here if o.status in OPEN and o.purpose is Purpose.ENTRY]
            lots += Decimal(abs(net) + sum(o.quantity - o.filled_quantity for o in waiting)) / here[0].lot
            opened = [o for o in here if o.filled_quantity and o.side.sign * net > 0]
            paid = sum(((o.fill_price or o.ltp or none) * o.filled_quantity for o in opened), none)
            value += abs(net) * paid / max(1, sum(o.filled_quantity for o in opened))
            value += sum(
                ((o.fill_price or o.ltp or none) * (o.quantity - o.filled_quantity) for o in waiting), none
            )
        mine = [o for o in rows if o.client == order.client and o.purpose is Purpose.ENTRY and o.created_at]
        shape, no = (order.ticker, order.side), (Status.DENIED, Status.NOT_SENT)
        same = [o.created_at for o in mine if (o.ticker, o.side) == shape and o.status not in no]
        last = max((at for at in same if at), default=None)
        return Exposure(
            lots, value.quantize(Decimal("0.01")), last, self.tried(order, runaway) if runaway else 1
        )

    def open_orders(
        self,
        scope: Scope,
        client: str | None = None,
        *,
        ticker: str | None = None,
        side: Side | None = None,
    ) -> tuple[Order, ...]:
        rows = (o for o in self._data.orders.values() if o.scope == scope and o.status in OPEN)
        return tuple(
            o
            for o in rows
            if client in (None, o.client) and ticker in (None, o.ticker) and side in (None, o.side)
        )

    def orders_in(self, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
        return tuple(
            o
            for o in self._data.orders.values()
            if (o.scope, o.ticker, o.product) == (scope, ticker, product) and o.status not in NEVER_SENT
        )

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
        self._must_write()
        self._data.adjusted.append((scope, Holding(client, ticker, product, delta), self.now()))
        self._data.adjustments.append((client, delta, reason))
        self._data.closing_prices.append(price)

    def adjusted(self, scope: Scope, reasons: Sequence[str]) -> tuple[Holding, ...]:
        sums: dict[tuple[str, str, Product], int] = {}
        for (where, h, _), (_, _, reason) in zip(self._data.adjusted, self._data.adjustments, strict=True):
            if where == scope and reason in reasons:
                key = (h.client, h.ticker, h.product)
                sums[key] = sums.get(key, 0) + h.net_quantity
        return tuple(Holding(*key, net) for key, net in sums.items() if net)

    def owns_lock(self, name: str, owner: str) -> bool:
        held = self._data.locks.get(name)
        return held is not None and held[0] == owner and held[1] > self.now()

    def free_lock(self, name: str, owner: str) -> None:
        if self._data.locks.get(name, ("",))[0] == owner:
            del self._data.locks[name]

    def _must_write(self) -> None:
        if not self._writable:
            raise AssertionError("expected no change in a reading transaction")

    def _keep(self, order: Order, event: AuditEvent) -> Order:
        order = replace(order, updated_at=self.now())
        events = self._data.events.setdefault(order.id, [])
        events.append(replace(event, sequence=len(events) + 1))
        self._data.orders[order.id] = order
        return order
