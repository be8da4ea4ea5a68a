"""What a person decides: the trading state, and what became of an order that nothing could prove."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from app.domain.audit import Event
from app.domain.levels import levels_at
from app.domain.order import Order, Purpose
from app.domain.risk import TradingState
from app.domain.status import MOVES, UNSETTLED, Status
from app.errors import FieldError, InvalidAlert, NotFound
from app.service.desk import Desk, event_of
from app.service.ports import Transaction
from app.service.records import Moved, StateChange, Stranger
from app.service.takeover import share_out

BY_HAND = frozenset({Status.IN_DOUBT, Status.NEEDS_REVIEW, Status.EXIT_PENDING})
"""States that a person may end. Everything else is the broker's word or a fact."""
ENDED = frozenset({Status.CANCELLED, Status.EXPIRED})
NEVER_TRADED = frozenset({Status.REJECTED, Status.NOT_PLACED, Status.DENIED})
REASON_LENGTH = (3, 500)


@dataclass(frozen=True, slots=True)
class StateSet:
    """The trading state as it is now, and what setting it has done."""

    now: StateChange
    changed: bool
    """False: it was that already, and the one who set it then stays on record."""
    acknowledged: tuple[Stranger, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's verdict. `filled` in contracts; needed where the state says that something has filled."""

    status: Status
    by: str
    reason: str
    filled: int | None = None
    price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Control:
    desk: Desk

    def set_state(self, state: TradingState, by: str, reason: str) -> StateSet:
        """In force for every instance at its next alert. Resuming says that a person has looked at the strangers.

        Raises InvalidAlert when the reason says nothing, or when a stranger came up while resuming.
        """
        desk, why = self.desk, _said(reason)
        seen: tuple[Stranger, ...] = ()
        with desk.store.write() as tx:
            if state is TradingState.ACTIVE:
                seen = tx.strangers(desk.scope, acknowledged=False)
                if tx.acknowledge_strangers(desk.scope, by) != len(seen):
                    raise _wrong("state", "a row that is not ours has just come up at the broker; look again")
            changed = tx.set_trading_state(desk.scope, state, by, why)
            now = tx.state_change(desk.scope)
        if changed:
            desk.notifier.notify("trading_state", f"{state} by {by}: {why}")
        return StateSet(now, changed, seen)

    def in_doubt(self) -> tuple[Order, ...]:
        """What somebody has to settle, newest first: doubts, waiting exits, and sends whose sender is late or gone."""
        desk = self.desk
        with desk.store.read() as tx:
            now = tx.now()
            found = [
                o
                for o in tx.open_orders(desk.scope)
                if o.status in BY_HAND
                or (o.status in UNSETTLED and (o.answer_by is None or o.answer_by <= now))
            ]
        return tuple(sorted(found, key=lambda o: (o.created_at or now, o.id), reverse=True))

    def resolve(self, order_id: str, verdict: Resolution) -> Order:
        """Raises NotFound, and InvalidAlert with what would be allowed."""
        desk = self.desk
        verdict = replace(verdict, reason=_said(verdict.reason))
        with desk.store.write() as tx:
            order = tx.get_order(desk.scope, order_id.upper(), lock=True)
            if order is None:
                raise NotFound("there is no such order")
            return self._resolved(tx, order, verdict)

    def _resolved(self, tx: Transaction, order: Order, verdict: Resolution) -> Order:
        after = verdict.status
        allowed = MOVES[order.status] if order.status in BY_HAND else frozenset()
        if after not in allowed - {Status.SENDING}:
            raise _wrong("status", _instead(order, allowed - {Status.SENDING}, after))
        filled = self._filled(order, verdict)
        detail = {"by": verdict.by, "reason": verdict.reason, "was": order.status.value}
        event = event_of(Event.ORDER_RESOLVED, tx.now(), after, filled=str(filled), **detail)
        if verdict.price is not None:
            event.detail["price"] = str(verdict.price)
        change = Moved(
            code="resolved",
            reason=f"{verdict.reason} ({verdict.by})",
            filled_quantity=filled,
            fill_price=verdict.price,
            filled_at=tx.now() if filled and order.filled_at is None else None,
        )
        moved = tx.move(order, after, event, _levels_from(order, change))
        if moved is None:
            raise _wrong("status", "the order has just moved; look again")
        if after is Status.REJECTED:
            tx.release(order.scope, order.id)
        elif after in ENDED:
            tx.release(order.scope, order.id, unfilled=Fraction(order.quantity - filled, order.quantity))
        share_out(tx, moved)
        return moved

    def _filled(self, order: Order, verdict: Resolution) -> int:
        filled = verdict.filled
        if filled is None:
            filled = order.quantity if verdict.status is Status.FILLED else order.filled_quantity
        whole = verdict.status is Status.FILLED
        if not 0 <= filled <= order.quantity or (whole and filled != order.quantity):
            raise _wrong("filled", f"expected {'' if whole else '0 to '}{order.quantity}, was {filled}")
        if verdict.status in NEVER_TRADED and filled:
            raise _wrong(
                "filled", f"expected 0 for {verdict.status}, was {filled}; what traded in part is CANCELLED"
            )
        if verdict.price is not None and not filled:
            raise _wrong("price", "expected none where nothing has filled")
        if verdict.status is Status.PARTIALLY_FILLED and not 0 < filled < order.quantity:
            raise _wrong("filled", f"expected more than 0 and less than {order.quantity}, was {filled}")
        return filled


def _levels_from(order: Order, change: Moved) -> Moved:
    """An entry's levels stand on the price it filled at, whoever says which that was."""
    if change.fill_price is None or order.purpose is not Purpose.ENTRY or order.stop_distance is None:
        return change
    levels = levels_at(change.fill_price, order.side, order.stop_distance, order.target_distance)
    return replace(change, stop_loss=levels.stop_loss, take_profit=levels.take_profit)


def _instead(order: Order, allowed: frozenset[Status], wanted: Status) -> str:
    if not allowed:
        return f"an order in {order.status} is not settled by hand"
    return f"an order in {order.status} can become {', '.join(sorted(allowed))}; was {wanted}"


def _said(reason: str) -> str:
    """The reason, without blanks around it: whoever reads the record later has nothing else."""
    least, most = REASON_LENGTH
    words = " ".join(reason.split())
    if not least <= len(words) <= most:
        raise _wrong("reason", f"expected {least} to {most} characters that say why, was {len(words)}")
    return words


def _wrong(field: str, message: str) -> InvalidAlert:
    return InvalidAlert((FieldError(field, message),))
