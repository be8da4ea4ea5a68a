"""What would become of an alert, without sending or storing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

from app.domain.alert import Action, Alert
from app.domain.contract import Contract, ist_date
from app.domain.levels import Levels
from app.domain.order import Order, Purpose, Side, signal_of
from app.domain.risk import Denial, Price, Verdict, judge
from app.errors import PriceUnavailable
from app.service.amount import how_much
from app.service.caps import caps_of
from app.service.desk import Budget, Desk
from app.service.exits import exit_verdicts
from app.service.intent import Job, draft
from app.service.place_order import levels_of, proposal_of, quantity_of, quote_of, resolve, usable_price
from app.service.records import Quote, Resolved
from app.service.under_way import meant_for
from app.service.which import choose, is_against_own


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything up to the send. `denial` is the first "no"; a field that was not reached is None."""

    alert: Alert
    resolved: Resolved | None
    denial: Denial | None
    quantity: int | None
    lots: int | None
    quote: Quote | None
    levels: Levels | None
    verdicts: tuple[Verdict, ...]


class CheckAlert:
    """Raises Unavailable when the store, the contract index or the quote cannot be read."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __call__(self, alert: Alert, request_id: str, started: float) -> CheckReport:
        desk = self.desk
        budget = Budget.of(started, desk.policy.request_deadline_s)
        with desk.store.read(budget.send) as tx:
            now, state = tx.now(), tx.trading_state(desk.scope)
        today: date = ist_date(now)
        job = Job(alert, request_id, budget, now, today, state, retake=None)
        if alert.action is Action.EXIT:
            return self._exit(job)
        resolved = resolve(desk, job)
        if isinstance(resolved, Denial):
            return CheckReport(alert, None, resolved, None, None, None, None, ())
        with desk.store.read(budget.send) as tx:
            against = is_against_own(tx, job, desk.scope, resolved.contract)
            held = sum(
                h.net_quantity
                for h in tx.holdings(desk.scope, alert.client)
                if (h.ticker, h.product) == (resolved.contract.ticker, alert.product)
            )
            orders = tx.orders_in(desk.scope, resolved.contract.ticker, alert.product) if against else ()
            out = draft(desk, job, resolved.contract, Side(alert.action.value), 0, Purpose.EXIT)
            meant = meant_for(tx, job, out, orders, ()) if against else 0
        return self._against(job, resolved, abs(held), meant) if against else self._entry(job, resolved)

    def _against(self, job: Job, resolved: Resolved, held: int, meant: int) -> CheckReport:
        """A BUY or SELL against what the client holds is an exit: reduce-only, and few checks may stop it."""
        contract, alert = resolved.contract, job.alert
        quantity = quantity_of(alert, contract.lot)
        lots = quantity // contract.lot if quantity % contract.lot == 0 else None
        verdicts = exit_verdicts(self.desk, job, contract)
        denial = next((v.denial for v in verdicts if v.denial is not None), None)
        amount = how_much(job, contract.lot, contract.freeze, held, meant)
        if denial is None and held and isinstance(amount, Denial):
            denial = amount
        return CheckReport(alert, resolved, denial, quantity, lots, None, None, verdicts)

    def _entry(self, job: Job, resolved: Resolved) -> CheckReport:
        """Every check of an entry, those after the first "no" too."""
        desk, alert, contract = self.desk, job.alert, resolved.contract
        limits, side = desk.policy.limits, Side(alert.action.value)
        quantity = quantity_of(alert, contract.lot)
        lots = quantity // contract.lot if quantity % contract.lot == 0 else None
        proposal = proposal_of(desk, job, contract, quantity)
        quote = quote_of(desk, job.budget.send, contract.ticker)
        order = draft(desk, job, contract, side, quantity, Purpose.ENTRY)
        levels, price = self._levels(alert, order, resolved, quote)
        with desk.store.read(job.budget.send) as tx:
            window = timedelta(seconds=limits.runaway.seconds) if limits.runaway else None
            exposure = tx.exposure(order, window)
            capped = tx.over_caps(desk.scope, caps_of(limits, proposal.now, proposal.lots, quantity))
        verdicts = judge(replace(proposal, price=price, exposure=exposure), limits)
        denial = desk.policy.rollout.denial(alert.strategy)
        denial = denial or next((v.denial for v in verdicts if v.denial is not None), capped)
        if isinstance(levels, Denial):
            return CheckReport(alert, resolved, denial or levels, quantity, lots, quote, None, verdicts)
        return CheckReport(alert, resolved, denial, quantity, lots, quote, levels, verdicts)

    def _exit(self, job: Job) -> CheckReport:
        """Which held contract it would close, by our own rows. How much is known only under the exit's lock."""
        alert, target = job.alert, choose(self.desk, job)
        if isinstance(target.contract, Contract):
            return CheckReport(alert, None, target.denial, None, None, None, None, ())
        order = target.contract
        found = self.desk.contracts.resolve(
            order.underlying, order.strike, order.option_type, order.expiry, order.exchange, job.now
        )
        resolved = Resolved(found.contract, target.explanation) if isinstance(found, Resolved) else None
        quantity = quantity_of(alert, order.lot) or None
        lots = quantity // order.lot if quantity and quantity % order.lot == 0 else None
        verdicts = exit_verdicts(self.desk, job, order)
        denial = target.denial or next((v.denial for v in verdicts if v.denial is not None), None)
        return CheckReport(alert, resolved, denial, quantity, lots, None, None, verdicts)

    def _levels(
        self, alert: Alert, order: Order, resolved: Resolved, quote: Quote | None
    ) -> tuple[Levels | Denial, Price | None]:
        policy = self.desk.policy
        try:
            price = usable_price(quote, policy.max_ltp_gap_percent)
        except PriceUnavailable as error:
            return Denial(error.code, error.detail), None
        chosen = policy.rollout.choose(alert.strategy, signal_of(order), alert.product)
        levels = levels_of(policy, chosen, price.ltp, order.side, alert, resolved.contract)
        if isinstance(levels, Denial):
            return levels, price
        return levels, replace(price, stop_distance=levels.stop_distance)
