"""The kill switch's hands: cancel what is working, close what this service opened, and (typed out) all the rest.

Trading is HALTED first, so that nothing new comes meanwhile. Every close is an ordinary exit of the operator's: under
its lease, reduce-only, never more than is held, waiting where something is in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.alert import ADMIN_CLIENT, Action, Alert, canonical_hash, key_of
from app.domain.audit import Event
from app.domain.order import Order
from app.domain.outcome import Accepted, NotSent, Outcome, Refused
from app.domain.risk import TradingState
from app.domain.status import WORKING, Status
from app.errors import FieldError, InvalidAlert, ServiceError
from app.service.by_hand import Done, close_the_rest, soon
from app.service.control import Control
from app.service.desk import Desk, event_of
from app.service.place_order import PlaceOrder
from app.service.records import Moved

MOST_EXITS = 50
"""Per contract: each sends up to the freeze quantity, so that this is far beyond any limit of open lots."""
ENDED = "kill_switch"
"""The code of a waiting exit that the kill switch has ended."""
TYPED_OUT = "ALL POSITIONS"
"""What a person types to have positions closed that this service has not opened."""


def typed_out(words: str, *, flatten: bool) -> bool:
    """Whether everything is meant. Raises InvalidAlert when it is said half."""
    if not words:
        return False
    if words != TYPED_OUT or not flatten:
        wanted = f"expected exactly {TYPED_OUT!r}, and only to flatten"
        raise InvalidAlert((FieldError("all_positions", f"{wanted}, was {words[:40]!r}"),))
    return True


@dataclass(frozen=True, slots=True)
class KillSwitch:
    desk: Desk

    def cancel(self, by: str, reason: str) -> Done:
        """Halt, and cancel every working order of ours: entries, and exits that have not filled."""
        Control(self.desk).set_state(TradingState.HALTED, by, reason)
        done = Done()
        self._cancel(done, entries_only=False)
        self._end_waiting(done, by, reason)
        return done

    def flatten(self, by: str, reason: str, *, all_positions: bool = False) -> Done:
        """Halt, cancel the working entries, and exit what this service opened, over all clients.

        `all_positions`: then also what the broker's account holds beyond it, by the broker's own close.
        """
        Control(self.desk).set_state(TradingState.HALTED, by, reason)
        done = Done()
        self._cancel(done, entries_only=True)
        ours = {(one.ticker, one.product.value) for one in self._held() if not self._exit(one, done)}
        self._end_waiting(done, by, reason)
        if all_positions:
            close_the_rest(self.desk, ours, f"by {by}: {reason}", done)
        return done

    def _cancel(self, done: Done, *, entries_only: bool) -> None:
        desk = self.desk
        with desk.store.read() as tx:
            live = [o for o in tx.open_orders(desk.scope) if o.status is not Status.EXIT_PENDING]
        working = [o for o in live if o.status in WORKING and o.broker_order_id]
        for order in working:
            if entries_only and order.purpose.value != "entry":
                continue
            try:
                outcome = self._cancelled(order)
                with desk.store.write() as tx:
                    said = type(outcome).__name__
                    tx.record(order, event_of(Event.ENTRY_CANCEL, tx.now(), order.status, outcome=said))
            except ServiceError as error:
                done.problems.append(f"{order.id} {order.ticker}: not cancelled: {error.detail}")
                continue
            if isinstance(outcome, Accepted):
                done.cancelled.append(order.id)
            elif not isinstance(outcome, Refused):  # a refused cancel found nothing that works any more
                done.problems.append(f"{order.id} {order.ticker}: not cancelled: {outcome.message}")
        if not entries_only:  # to flatten, an exit waits for what is not settled, and says so itself
            text = "not cancelled; run it again once it is settled"
            done.problems += [f"{o.id} {o.ticker}: is {o.status}, {text}" for o in live if o not in working]

    def _cancelled(self, order: Order) -> Outcome:
        """What did not go out is tried once more right after a read: so a breaker that entries have opened lets it pass."""
        with self.desk.broker.exchange(soon(self.desk)) as exchanger:
            outcome = exchanger.cancel(order.broker_order_id or "")
            if isinstance(outcome, NotSent):
                exchanger.order_book()
                outcome = exchanger.cancel(order.broker_order_id or "")
        return outcome

    def _end_waiting(self, done: Done, by: str, reason: str) -> None:
        """Clients' exits that still wait. A halt alone keeps them; but what they were to close is closed here or has
        been given up, and after a resume they would close what was bought since. The operator's own go on.
        """
        desk, why = self.desk, f"ended by the kill switch of {by}: {reason}"
        try:
            with desk.store.write() as tx:
                for order in tx.open_orders(desk.scope):
                    if order.status is not Status.EXIT_PENDING or order.client == ADMIN_CLIENT:
                        continue
                    event = event_of(Event.ORDER_DENIED, tx.now(), Status.DENIED, code=ENDED, reason=why)
                    if tx.move(order, Status.DENIED, event, Moved(code=ENDED, reason=why)) is not None:
                        done.cancelled.append(order.id)
        except ServiceError as error:
            done.problems.append(f"the waiting exits were not ended: {error.detail}")

    def _held(self) -> list[Order]:
        """One row of every contract and product in which anything of ours is held or under way."""
        desk = self.desk
        with desk.store.read() as tx:
            rows = {(o.ticker, o.product): o for o in tx.open_orders(desk.scope)}
            for holding in tx.holdings(desk.scope, None):
                found = tx.orders_in(desk.scope, holding.ticker, holding.product)
                if found:
                    rows.setdefault((holding.ticker, holding.product), found[-1])
            now = tx.now()
        return [order for _, order in sorted(rows.items()) if order.session_end > now]

    def _exit(self, order: Order, done: Done) -> bool:
        """Exit after exit (the freeze quantity bounds each) until nothing is held, or something says no.

        True: nothing of ours was there to begin with, neither held nor under way.
        """
        place = PlaceOrder(self.desk)
        for number in range(MOST_EXITS):
            try:
                alert = self._alert(order, number)
                answer = place(alert, request_id="kill-switch", started=self.desk.clock.monotonic())
            except ServiceError as error:
                done.problems.append(f"{order.ticker} {order.product}: not exited: {error.detail}")
                return False
            row = answer.order
            if row.code == "nothing_to_exit":
                return number == 0
            done.exits.append(row)
            if row.status is not Status.ACCEPTED:
                done.problems.append(f"{order.ticker} {order.product}: {row.status}: {row.reason}")
                return False
        return False

    def _alert(self, order: Order, number: int) -> Alert:
        now = self.desk.clock.now()
        unique = f"kill {self.desk.random_bytes(12).hex()} {number}"
        body = canonical_hash({"kill": unique})
        return Alert(
            client=ADMIN_CLIENT,
            symbol=order.underlying,
            strike=order.strike,
            option_type=order.option_type,
            expiry=order.expiry,
            action=Action.EXIT,
            product=order.product,
            key=key_of(ADMIN_CLIENT, unique, body, now),
            received_at=now,
            exchange=order.exchange,
            strategy="kill switch",
        )
