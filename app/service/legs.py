"""An exit and the protective legs around it: off before it, back on when it did not happen, or a page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from app.domain.alert import ADMIN_CLIENT
from app.domain.audit import Event
from app.domain.order import Order
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.domain.status import Status
from app.errors import ServiceError, StoreUnavailable
from app.service.desk import Answer, Budget, Desk, event_of
from app.service.exchanger import Exchanger
from app.service.holding import net_of
from app.service.records import AuditEvent, Moved, Position
from app.service.send import LastCheck, last_check, record, record_by, send

log = logging.getLogger(__name__)

LEG_CANCEL_IN_DOUBT = "leg_cancel_in_doubt"
LEGS_UNSURE = "the protective legs could not be taken off for certain"


@dataclass(frozen=True, slots=True)
class Legs:
    """A committed exit and what protects the position it closes."""

    order: Order
    position: Position | None
    shown: bool
    asked: Order | None
    """The latest own entry that asked for protection: its distances are what a restore sets."""
    ours: int
    """Contracts of all clients' that stay when other exits have filled, this one's own among them: the legs stand on the
    whole position.
    """
    shown_ours: int
    """Of what the broker shows, all that is any client's."""

    def remove(self, desk: Desk, exchanger: Exchanger, budget: Budget, *, admin: bool) -> Outcome | None:
        """Take the overlay legs off. None: there are none to take off; the exit may go."""
        if self.position is None or not self.order.product.takes_tag or not (self.shown or self.asked):
            return None
        stopped = exchanger.room_for_exit() or last_check(desk, self.order, budget, admin=admin)()
        if stopped is not None:
            return stopped
        try:
            outcome = exchanger.set_protection(self.position.id, Decimal(0), Decimal(0))
        except Exception as error:  # the exit is committed, and the legs may be off: a doubt, and no error
            log.exception("taking the legs off failed")
            return Unknown(f"unexpected {type(error).__name__} while the legs were taken off")
        if isinstance(outcome, Unknown | NotSent) or (isinstance(outcome, Refused) and self.shown):
            return outcome
        changed, left = self._changed(exchanger)
        if changed is not None:
            if isinstance(outcome, Accepted) and left:
                log.warning("%s: %s", self.order.id, _restore(desk, self, exchanger, None))
            return changed
        # Refused, and nowhere to be seen: asked for once, and the broker has none.
        return outcome if isinstance(outcome, Accepted) else None

    def _changed(self, exchanger: Exchanger) -> tuple[NotSent | None, bool]:
        """A leg may have filled before it was off, and an exit would then open the other side: look once more.

        Also whether anything on the position's side is left that needs its legs back.
        """
        assert self.position is not None
        try:
            now = net_of(exchanger.positions(), self.order.ticker, self.order.product)
        except ServiceError as error:
            no = NotSent(error.code, f"after the legs were off: {error.detail}", error.retry_after_s)
            return no, True
        net = now.net_quantity if now else 0
        if net == self.position.net_quantity:
            return None, True
        text = f"the position went from {self.position.net_quantity} to {net} while its legs were taken off"
        return NotSent("position_changed", text, 1), net * self.position.net_quantity > 0


def send_without_legs(
    desk: Desk, legs: Legs, removed: Outcome | None, budget: Budget, *, admin: bool
) -> Answer:
    """Send the committed exit when its legs are provably off, or when there were none."""
    order, position = legs.order, legs.position
    if isinstance(removed, NotSent):
        return record(desk, order, removed, budget)
    if isinstance(removed, Unknown | Refused):
        return _wait_for_legs(desk, order, removed, budget, admin=admin)
    notes = [] if removed is None else [Event.LEG_CANCELLED]

    def call(exchanger: Exchanger, check: LastCheck) -> Outcome:
        if order.product.takes_tag:
            outcome = exchanger.place(order.ticket(), check, reduces=True)
        elif position is not None:
            outcome = exchanger.close_position(position.id, check)
        else:
            outcome = NotSent("exit_unsupported", "the broker shows no position to close")
        if removed is not None:
            event = _after(desk, legs, exchanger, outcome)
            notes.extend([event] if event else [])
        return outcome

    answer = send(desk, order, budget, call, admin=admin)
    return _noted(desk, answer, notes, budget, leaves=max(0, legs.ours - order.quantity))


def said_of_legs(event: Event, at: datetime, order: Order, **more: str) -> AuditEvent:
    """`as_of`: what the speaker took the exit for. Whoever has recorded its end since did not know of the
    legs, and `relegs` goes by what was known when they were dealt with.
    """
    return event_of(event, at, order.status, as_of=order.status, **more)


def _after(desk: Desk, legs: Legs, exchanger: Exchanger, outcome: Outcome) -> Event | None:
    """What the position needs once its legs are off and the exit's outcome is there."""
    rest = legs.ours - legs.order.quantity
    if isinstance(outcome, Accepted) and rest <= 0:
        return _others_naked(desk, legs)
    if isinstance(outcome, Unknown):
        return _naked(desk, legs)
    return _restore(desk, legs, exchanger, rest if isinstance(outcome, Accepted) else None)


def _restore(desk: Desk, legs: Legs, exchanger: Exchanger, quantity: int | None) -> Event:
    """Put our entry's distances back, over `quantity` (None: what is ours, if that is not all there is)."""
    if legs.position is None or legs.asked is None or not legs.asked.stop_distance:
        return _naked(desk, legs)  # of one that was adopted from the book the distances are not known
    stop, target = legs.asked.stop_distance, legs.asked.target_distance
    if quantity is None and legs.ours < abs(legs.position.net_quantity):
        quantity = legs.ours
    try:
        back = exchanger.set_protection(legs.position.id, stop or Decimal(0), target or Decimal(0), quantity)
    except Exception:  # the exit's own outcome must be kept, whatever happens to its legs
        log.exception("restoring the legs failed")
    else:
        if isinstance(back, Accepted):
            return Event.LEG_RESTORED
    return _naked(desk, legs)


def _naked(desk: Desk, legs: Legs) -> Event:
    text = f"{legs.order.ticker}: the legs are off and could not be restored (exit {legs.order.id})"
    desk.notifier.notify("unprotected", text, page=True)
    return Event.LEG_UNPROTECTED


def _others_naked(desk: Desk, legs: Legs) -> Event | None:
    """The legs stand on the whole position: with ours went the protection of what a hand may hold beside it."""
    beside = abs(legs.position.net_quantity) - legs.shown_ours if legs.position else 0
    if not legs.shown or beside <= 0:
        return None
    text = (
        f"{legs.order.ticker}: {beside} opened outside this service have no protection any more "
        f"(exit {legs.order.id})"
    )
    desk.notifier.notify("unprotected", text, page=True)
    return Event.LEG_UNPROTECTED


def _wait_for_legs(
    desk: Desk, order: Order, removed: Unknown | Refused, budget: Budget, *, admin: bool
) -> Answer:
    """The legs may still be on, and an exit beside them could fill twice: no exit, and a person is told."""
    reason = f"{LEGS_UNSURE}: {removed.message}"
    text = f"exit {order.id} of {order.ticker} waits: {reason}"
    desk.notifier.notify("exit_waits_for_legs", text, page=not _has_waited(desk, order))
    answer = record(desk, order, NotSent(LEG_CANCEL_IN_DOUBT, reason), budget)
    if answer.order.status is not Status.NOT_SENT:
        return answer
    # The operator's again, as it came: a holder's own exit would wait for the end of the halt that it may be part of.
    change = Moved(code="exit_pending", reason=reason, client=ADMIN_CLIENT if admin else None)
    try:
        with desk.store.write(record_by(desk, budget)) as tx:
            event = event_of(Event.EXIT_PENDING, tx.now(), Status.EXIT_PENDING, reason=reason)
            row = tx.move(answer.order, Status.EXIT_PENDING, event, change)
    except Exception:  # the legs may be off: not an answer that reads as "nothing happened"
        log.exception("exit %s could not be recorded as pending", order.id)
        row = None
    pending = replace(answer.order, status=Status.EXIT_PENDING, code="exit_pending", reason=reason)
    return Answer(row or pending, replayed=False)


def _has_waited(desk: Desk, order: Order) -> bool:
    """Whether this exit has waited for its legs before: it is tried again at every pass, and one page is enough."""
    try:
        said = desk.store.events(order.scope, order.id)
    except StoreUnavailable:
        return False
    return any(
        e.event is Event.EXIT_PENDING and e.detail.get("reason", "").startswith(LEGS_UNSURE) for e in said
    )


def _noted(desk: Desk, answer: Answer, notes: list[Event], budget: Budget, *, leaves: int) -> Answer:
    """`leaves`: what the exit was to leave, on which alone a stop may stand while it rests (`narrow`)."""
    if not notes:
        return answer
    try:
        with desk.store.write(record_by(desk, budget)) as tx:
            row = tx.get_order(answer.order.scope, answer.order.id, lock=True)
            for event in notes if row else ():
                assert row is not None
                row = tx.record(row, said_of_legs(event, tx.now(), answer.order, leaves=str(leaves)))
    except Exception:  # notes beside an outcome that is already recorded
        log.exception("the legs' events of %s could not be recorded", answer.order.id)
    return answer
