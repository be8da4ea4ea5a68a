"""Alert -> contract -> levels -> risk -> committed intent -> one broker call -> recorded outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from app.domain.alert import Action, Alert
from app.domain.contract import Contract, ist_date
from app.domain.deadline import Deadline
from app.domain.experiment import Chosen, at_touch
from app.domain.levels import Levels, levels_for
from app.domain.order import Mode, Order, OrderKind, Protection, Purpose, Side, signal_of
from app.domain.risk import Denial, Price, Proposal, Stage, first_denial
from app.domain.session import previous_trading_day
from app.domain.status import UNSETTLED
from app.errors import BrokerReadFailed, CommitUnknown, NotReconciled, OutOfTime, PriceUnavailable
from app.service.caps import caps_of
from app.service.desk import Answer, Budget, Desk, Policy, broker_says_open
from app.service.exits import close, exit_held
from app.service.intent import (
    Job,
    claim,
    deny,
    draft,
    known_answer,
    put_denied,
    put_sending,
    unknown_contract,
)
from app.service.observe import phase
from app.service.ports import Transaction
from app.service.ready import code_of
from app.service.records import Quote, Resolved
from app.service.runaway import deny_entry, tell_runaway, trip
from app.service.send import Slot, armed, committed_after_all, send, take_slot
from app.service.under_way import overtaken
from app.service.which import is_against_own

__all__ = ["Answer", "PlaceOrder", "Policy"]


@dataclass(frozen=True, slots=True)
class Start:
    """What an alert means, before anything is decided. `resolved` is None for an EXIT, which goes by what is held."""

    job: Job
    resolved: Resolved | Denial | None
    against_own: bool


class AgainstOwn(Exception):
    """While the price was asked for, an order of this client's on the other side came to this contract."""


class PlaceOrder:
    """One alert to one order, or to a clear "no".

    Returns the row to answer from. Raises AlertRefused for what the sender must change and Unavailable when
    nothing was sent; whatever may have been sent is a state of the row and never an error.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __call__(self, alert: Alert, *, request_id: str, started: float) -> Answer:
        """`started`: the monotonic reading at the request's first byte."""
        desk = self.desk
        start = self._begin(alert, request_id, started)
        if isinstance(start, Answer):
            return start
        job, resolved = start.job, start.resolved
        if resolved is None:
            return exit_held(desk, job)
        side = Side(alert.action.value)
        if isinstance(resolved, Denial):
            contract = unknown_contract(alert, job.today)
            order = draft(desk, job, contract, side, quantity_of(alert, 1), Purpose.ENTRY)
            return deny_entry(desk, job, order, resolved)
        was_exit = job.retake is not None and job.retake.purpose is Purpose.EXIT
        if start.against_own or was_exit:
            answer = _close(desk, job, resolved.contract, side)
            if answer is not None:
                return answer
        if was_exit:  # what it was to close has gone meanwhile: sent as an entry it would open the other side
            order = draft(desk, job, resolved.contract, side, quantity_of(alert, 1), Purpose.EXIT)
            return deny(desk, job, order, Denial("nothing_to_exit", "what this exit was to close is gone"))
        try:
            return self._enter(job, resolved, side, was_against=start.against_own)
        except AgainstOwn:
            answer = _close(desk, job, resolved.contract, side)
        if answer is None:  # and gone again: the alert, sent anew, is looked at anew
            raise OutOfTime("what is held in this contract changed twice meanwhile", retry_after_s=1)
        return answer

    def _begin(self, alert: Alert, request_id: str, started: float) -> Start | Answer:
        """One read of the database for all that comes before a decision."""
        desk = self.desk
        budget = Budget.of(started, desk.policy.request_deadline_s)
        with desk.store.read(budget.send) as tx:
            found = tx.arrival(desk.scope, alert.client, alert.key)
            now, known, reconciled = tx.now(), found.known, desk.reconciled(tx)
            retake = known.order if known is not None else None
            if known is not None:
                answer = known_answer(desk, known, alert, now)
                if answer is not None:
                    return answer
            job = Job(alert, request_id, budget, now, ist_date(now), found.state, retake, reconciled)
            if alert.action is Action.EXIT:
                return Start(job, None, against_own=False)
            resolved = resolve(desk, job)
            against = not isinstance(resolved, Denial) and is_against_own(
                tx, job, desk.scope, resolved.contract
            )
        return Start(job, resolved, against_own=against)

    def _enter(self, job: Job, resolved: Resolved, side: Side, *, was_against: bool) -> Answer:
        """Raises AgainstOwn. `was_against`: it has been looked at under the contract's lease, and is an entry."""
        if not job.reconciled:
            raise NotReconciled("the orders of before this start are being looked up", retry_after_s=5)
        desk, alert, contract, policy = self.desk, job.alert, resolved.contract, self.desk.policy
        order = draft(desk, job, contract, side, quantity_of(alert, contract.lot), Purpose.ENTRY)
        chosen = policy.rollout.choose(alert.strategy, signal_of(order), alert.product)
        order = replace(order, explanation=resolved.explanation, variant=chosen.label if chosen else "")
        proposal = proposal_of(desk, job, contract, order.quantity)
        if (off := policy.rollout.denial(alert.strategy)) is not None:
            return deny(desk, job, order, off)  # switched off already: whatever it fires stops nobody else
        denial = first_denial(proposal, policy.limits, (Stage.SHAPE,))
        if denial is not None:
            return deny_entry(desk, job, order, denial)
        if (missing := desk.broker.ready()) is not None:
            raise BrokerReadFailed(missing, code=code_of(missing))
        price = usable_price(quote_of(desk, job.budget.send, contract.ticker), policy.max_ltp_gap_percent)
        ltp = price.ltp
        levels = levels_of(policy, chosen, ltp, side, alert, contract)
        if isinstance(levels, Denial):
            return deny_entry(desk, job, replace(order, ltp=ltp), levels)
        proposal = replace(proposal, price=replace(price, stop_distance=levels.stop_distance))
        denial = first_denial(proposal, policy.limits, (Stage.PRICE,))
        if denial is not None:
            return deny_entry(desk, job, replace(order, ltp=ltp), denial)
        order = replace(
            order,
            ltp=ltp,
            stop_distance=levels.stop_distance,
            target_distance=levels.target_distance,
            stop_loss=levels.stop_loss,
            take_profit=levels.take_profit,
            protection=Protection.REQUESTED,
        )
        if chosen is not None and chosen.variant.kind is OrderKind.LIMIT:
            touch = at_touch(side, price.bid, price.ask, contract.tick)
            order = replace(order, kind=OrderKind.LIMIT, limit_price=touch)
        step, slot = self._commit(job, order, proposal, was_against=was_against)
        if isinstance(step, Answer):
            return step
        return send(desk, step, job.budget, lambda x, check: x.place(step.ticket(), check), slot=slot)

    def _commit(
        self, job: Job, order: Order, proposal: Proposal, *, was_against: bool
    ) -> tuple[Order | Answer, Slot | None]:
        desk, limits = self.desk, self.desk.policy.limits
        wild: str | None = None
        slot: Slot | None = None
        try:
            # Entries wait for one another anyway (`exposure`): one connection for them leaves the others to exits.
            with desk.store.write(job.budget.send, queued=True) as tx:
                repeat = claim(desk, tx, job, order.id)
                if repeat is not None:
                    return repeat, None
                window = timedelta(seconds=limits.runaway.seconds) if limits.runaway else None
                with phase("risk"):
                    fresh = replace(
                        proposal, state=tx.trading_state(desk.scope), exposure=tx.exposure(order, window)
                    )
                    # Looked at again after the commits of others: nothing of this transaction is kept then.
                    if not was_against and is_against_own(tx, job, desk.scope, proposal.contract):
                        raise AgainstOwn
                    denial = overtaken(tx, order, job.now) or first_denial(fresh, limits)
                    denial = denial or unsettled_bracket(tx, order)
                    if denial is None:
                        denial = tx.reserve(
                            desk.scope,
                            order.id,
                            caps_of(limits, fresh.now, fresh.lots, order.quantity),
                            is_new=job.retake is None,
                        )
                if denial is not None:
                    row = put_denied(tx, job, order, denial)
                    wild = trip(tx, desk, fresh.exposure.tried if fresh.exposure else 0)
                else:
                    slot = take_slot(desk, tx)
                    order = armed(desk, tx, order, job.budget)
                    put_sending(tx, job, order)
        except CommitUnknown:
            return committed_after_all(desk, order, job.budget), slot
        tell_runaway(desk, order, wild)
        return (order, slot) if denial is None else (Answer(row, replayed=False), None)


def _close(desk: Desk, job: Job, contract: Contract, side: Side) -> Answer | None:
    text = f"{side} closes what is held: {contract.ticker}, expiry {contract.expiry:%d %b %Y}"
    return close(desk, job, contract, contract.freeze, side, text)


def resolve(desk: Desk, job: Job) -> Resolved | Denial:
    alert = job.alert
    with phase("resolve"):
        return desk.contracts.resolve(
            alert.symbol, alert.strike, alert.option_type, alert.expiry, alert.exchange, job.now
        )


def quantity_of(alert: Alert, lot: int) -> int:
    """Contracts that the alert asks for; zero when it names none."""
    return alert.qty if alert.qty is not None else (alert.lots or 0) * lot


def levels_of(
    policy: Policy, chosen: Chosen | None, ltp: Decimal, side: Side, alert: Alert, contract: Contract
) -> Levels | Denial:
    """The levels of an entry, by its experiment's percents where it is in one that has any."""
    sl, tp = policy.sl_percent, policy.tp_percent
    if chosen is not None:
        sl, tp = chosen.variant.sl_percent or sl, chosen.variant.tp_percent or tp
    return levels_for(ltp, side, alert.product, contract.tick, sl, tp)


def proposal_of(desk: Desk, job: Job, contract: Contract, quantity: int) -> Proposal:
    """An entry, as far as its alert and its contract go."""
    return Proposal(
        contract=contract,
        quantity=quantity,
        product=job.alert.product,
        is_exit=False,
        state=job.state,
        master_not_before=previous_trading_day(job.today),
        live=desk.scope.mode is Mode.LIVE,
        now=job.now,
        broker_says_open=broker_says_open(desk, contract.exchange, job.budget.send),
        is_buy=job.alert.action is Action.BUY,
        delayed_feed=job.alert.delayed_feed,
        fired_at=job.alert.fired_at,
        client_max_lots=job.alert.limits.max_lots,
        client_symbols=job.alert.limits.symbols,
    )


def quote_of(desk: Desk, deadline: Deadline, ticker: str) -> Quote | None:
    """The broker's quote. Raises BrokerReadFailed; None: answered, without a good row."""
    with desk.broker.exchange(deadline) as exchanger:
        return exchanger.quotes([ticker]).get(ticker)


def usable_price(quote: Quote | None, max_gap_percent: Decimal) -> Price:
    """The quote when levels may stand on it, else PriceUnavailable.

    Quotes carry no trade time: a last price far outside the spread is an old one, and would set a wrong stop.
    """
    if quote is None:
        raise PriceUnavailable("the broker's quote has no row for this contract")
    for name, value in (("last price", quote.ltp), ("bid", quote.bid), ("ask", quote.ask)):
        if value is None or not value.is_finite() or value <= 0:
            raise PriceUnavailable(f"{quote.ticker} has no usable {name}, so no stop could be set rightly")
    if quote.ltp is None or quote.bid is None or quote.ask is None:  # narrows the types; refused above
        raise PriceUnavailable(f"{quote.ticker} has no usable price")
    gap = max_gap_percent / 100
    if quote.ltp < quote.bid * (1 - gap) or quote.ltp > quote.ask * (1 + gap):
        raise PriceUnavailable(
            f"{quote.ticker}: the last price {quote.ltp} lies more than {max_gap_percent} % outside "
            f"{quote.bid} to {quote.ask}: it is an old trade's"
        )
    return Price(quote.ltp, quote.bid, quote.ask, None)


def unsettled_bracket(tx: Transaction, order: Order) -> Denial | None:
    """BO and CO carry no tag: two doubts of the same shape could not be told apart in the book."""
    if order.product.takes_tag:
        return None
    for other in tx.orders_in(order.scope, order.ticker, order.product):
        if other.status in UNSETTLED and other.side is order.side and other.id != order.id:
            return Denial(
                "unsettled_bracket",
                f"order {other.id} in {order.ticker} {order.product} is not settled yet; "
                "one at a time, because these products carry no tag",
            )
    return None
