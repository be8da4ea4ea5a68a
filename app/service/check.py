"""What would become of an alert, without sending or storing anything."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from app.domain.alert import Action, Alert
from app.domain.contract import ist_date
from app.domain.levels import Levels, levels_for
from app.domain.order import Scope, Side
from app.domain.risk import Denial, Verdict, judge
from app.errors import PriceUnavailable
from app.service.intent import Job
from app.service.place_order import last_price, proposal_of, quantity_of, quote_of, resolve
from app.service.ports import Broker, Clock, Contracts, Notifier, Store
from app.service.records import Quote, Resolved
from app.service.send import Budget, Desk, Policy


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

    def __init__(
        self,
        store: Store,
        broker: Broker,
        contracts: Contracts,
        clock: Clock,
        scope: Scope,
        policy: Policy,
        notifier: Notifier,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.desk = Desk(store, broker, contracts, clock, scope, policy, notifier, random_bytes)

    def __call__(self, alert: Alert, request_id: str, started: float) -> CheckReport:
        desk = self.desk
        budget = Budget.of(started, desk.policy.request_deadline_s)
        with desk.store.read(budget.send) as tx:
            now, state = tx.now(), tx.trading_state(desk.scope)
        today: date = ist_date(now)
        job = Job(alert, request_id, budget, now, today, state, all_clients=False, retake=None)
        resolved = resolve(desk, job)
        if isinstance(resolved, Denial):
            return CheckReport(alert, None, resolved, None, None, None, None, ())
        contract = resolved.contract
        quantity = quantity_of(alert, contract.lot)
        lots = quantity // contract.lot if quantity % contract.lot == 0 else None
        if alert.action is Action.EXIT:
            return CheckReport(alert, resolved, None, quantity or None, lots or None, None, None, ())
        verdicts = judge(proposal_of(job, contract, quantity), desk.policy.limits)
        denial = next((v.denial for v in verdicts if v.denial is not None), None)
        quote = quote_of(desk, budget.send, contract.ticker)
        levels = self._levels(alert, resolved, quote)
        if isinstance(levels, Denial):
            return CheckReport(alert, resolved, denial or levels, quantity, lots, quote, None, verdicts)
        return CheckReport(alert, resolved, denial, quantity, lots, quote, levels, verdicts)

    def _levels(self, alert: Alert, resolved: Resolved, quote: Quote | None) -> Levels | Denial:
        policy = self.desk.policy
        try:
            ltp = last_price(quote, policy.max_ltp_gap_percent)
        except PriceUnavailable as error:
            return Denial(error.code, error.detail)
        side, tick = Side(alert.action.value), resolved.contract.tick
        return levels_for(ltp, side, alert.product, tick, policy.sl_percent, policy.tp_percent)
