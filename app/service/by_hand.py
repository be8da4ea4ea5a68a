"""What a hand opened, closed by the broker's own close: typed out, and never so that it may be closed twice.

No row of ours stands for such a close, so that the log and the page are its record. Its order may rest, and the broker
closes the whole net once more at the next word: what rests on the closing side is cancelled first, and a close whose
order may not show yet keeps the next one off.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from app.domain.deadline import Deadline
from app.domain.order import Order, Side
from app.domain.outcome import Accepted, NotSent, Outcome, Refused
from app.errors import ServiceError
from app.service.desk import Desk
from app.service.exchanger import Exchanger
from app.service.records import BookOrder, Position

log = logging.getLogger(__name__)

CALL_S = 2.0
SHOWN_WITHIN = timedelta(seconds=10)
"""An order that the broker has taken stands in the book or in the net by then."""
UNKNOWN_FOR = timedelta(seconds=150)
"""One that it may have taken, too: longer than the absence of any order takes to be proven (settle.py)."""
OWN_LEGS = frozenset({"BO", "CO"})
"""The broker takes these products' legs away with the position."""


@dataclass
class Done:
    """What the kill switch did; one line for each thing that a person has to know."""

    cancelled: list[str] = field(default_factory=list)
    """Orders that worked at the broker, and exits that waited here."""
    exits: list[Order] = field(default_factory=list)
    closed_by_hand: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def soon(desk: Desk) -> Deadline:
    return Deadline(desk.clock.monotonic() + CALL_S)


def outcome_text(outcome: object) -> str:
    return f"{type(outcome).__name__} {getattr(outcome, 'message', '')}".strip()


def close_the_rest(desk: Desk, ours: Collection[tuple[str, str]], why: str, done: Done) -> None:
    """All positions but those in `ours` (ticker, product), and where an order of ours is under way: the broker's close
    would sell what another exit, perhaps another instance's, may have sold already.
    """
    try:
        with desk.broker.exchange(soon(desk)) as exchanger:
            positions = [p for p in exchanger.positions() if p.net_quantity]
    except ServiceError as error:
        done.problems.append(f"the positions could not be read: {error.detail}")
        return
    for position in positions:
        if (position.ticker, position.product) in ours:
            done.problems.append(f"{position.id}: our exit there is not done yet; run it again")
            continue
        try:
            with _only_one(desk, position) as closing:
                if closing is None:
                    text = (
                        "a close was sent there a moment ago, or is being sent; run it again in three minutes"
                    )
                    done.problems.append(f"{position.id}: not closed: {text}")
                    continue
                _close(desk, position, closing, why, done)
        except ServiceError as error:
            done.problems.append(f"{position.id}: not closed: {error.detail}")


@dataclass
class _Closing:
    """The right to close one position: whoever has it, and for how long after him nobody has."""

    name: str
    owner: str
    keep: timedelta | None = None
    """None: nothing was sent, and the next one may at once."""


@contextmanager
def _only_one(desk: Desk, position: Position) -> Iterator[_Closing | None]:
    scope = desk.scope
    name = f"close:{scope.mode.value}:{scope.account}:{position.id}"
    closing = _Closing(name, desk.random_bytes(8).hex())
    # For the longest at once: this process may end, or lose its database, right after its close.
    if not desk.store.take_lock(name, closing.owner, UNKNOWN_FOR, Deadline(desk.clock.monotonic())):
        yield None
        return
    try:
        yield closing
    finally:
        try:
            if closing.keep is None:
                with desk.store.write(soon(desk)) as tx:
                    tx.free_lock(name, closing.owner)
            elif closing.keep != UNKNOWN_FOR:
                desk.store.take_lock(name, closing.owner, closing.keep, soon(desk))
        except ServiceError as error:  # the close may be at the broker: what came of it is to be told
            log.warning("lease %s could not be freed (%s); it ends by itself", name, error.code)


def _close(desk: Desk, position: Position, closing: _Closing, why: str, done: Done) -> None:
    off: list[str] = []
    is_closed = False
    try:
        is_closed = _closed(desk, position, closing, why, done, off)
    finally:
        done.cancelled += [f"{ident} {position.ticker}, a hand's" for ident in off]
        if off and not is_closed:  # perhaps its stop
            text = f"{position.id} {position.net_quantity}: {', '.join(off)} cancelled, and it is not closed ({why})"
            desk.notifier.notify("closed_by_hand", text, page=True)


def _closed(desk: Desk, position: Position, closing: _Closing, why: str, done: Done, off: list[str]) -> bool:
    """Whether nothing more is to be done. `off`: what was cancelled for it."""
    with desk.broker.exchange(soon(desk)) as exchanger:
        # Before anything is taken off: with it gone the close must be able to go out.
        stopped = _nothing_in(desk, position) or exchanger.room_for_exit()
        no = stopped.message if stopped is not None else _clear(exchanger, position, off)
        if no is not None:
            done.problems.append(f"{position.id}: not closed: {no}")
            return False
        still = next((p for p in exchanger.positions() if p.id == position.id and p.net_quantity), None)
    if still is None:
        return True
    with desk.broker.exchange(soon(desk)) as exchanger:
        exchanger.positions()  # by which the close passes an open breaker
        closing.keep = UNKNOWN_FOR
        outcome = exchanger.close_position(still.id, partial(_nothing_in, desk, still))
    closing.keep = _kept(outcome)
    line = f"{still.id} {still.net_quantity}: {outcome_text(outcome)}"
    (done.closed_by_hand if isinstance(outcome, Accepted) else done.problems).append(line)
    desk.notifier.notify("closed_by_hand", f"{line} ({why})", page=True)
    return isinstance(outcome, Accepted)


def _kept(outcome: Outcome) -> timedelta | None:
    if isinstance(outcome, Accepted):
        return SHOWN_WITHIN
    return None if isinstance(outcome, NotSent | Refused) else UNKNOWN_FOR


def _clear(exchanger: Exchanger, position: Position, off: list[str]) -> str | None:
    """Cancel what rests on the closing side. Why it cannot be closed: something may still fill there."""
    resting = _resting(exchanger.order_book(), position)
    for row in resting:
        if isinstance(exchanger.cancel(row.broker_order_id), Accepted):
            off.append(row.broker_order_id)  # noqa: PERF401 - one that raises leaves those before it told
    # Another order's leg that cannot be cancelled by itself must not keep the position open for ever.
    left = [r for r in _resting(exchanger.order_book(), position) if not r.parent_id] if resting else []
    if not left:
        return None
    return f"order {left[0].broker_order_id} rests there on the closing side, and is not cancelled yet; run it again"


def _resting(book: Collection[BookOrder], position: Position) -> list[BookOrder]:
    side = Side.SELL if position.net_quantity > 0 else Side.BUY
    return [
        row
        for row in book
        if row.is_working
        and (row.ticker, row.product, row.side) == (position.ticker, position.product, side)
        and not (row.parent_id and row.product in OWN_LEGS)
    ]


def _nothing_in(desk: Desk, position: Position) -> NotSent | None:
    """The last look before a close: what came in doubt since the positions were read counts too."""
    place = position.ticker, position.product
    try:
        with desk.store.read() as tx:
            found = [o for o in tx.open_orders(desk.scope) if (o.ticker, o.product) == place]
    except ServiceError as error:
        return NotSent(error.code, error.detail)
    if not found:
        return None
    return NotSent("under_way", f"order {found[0].id} is {found[0].status}; run it again once it is settled")
