"""Which orders are exits, and which contract an EXIT means: what is held by our own rows, then what a rule picks."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.contract import Contract
from app.domain.order import Order, Scope, Side
from app.domain.risk import Denial
from app.domain.status import Status
from app.errors import NoMaster
from app.service.desk import Desk
from app.service.intent import Job, unknown_contract
from app.service.ports import Transaction
from app.service.records import Resolved
from app.service.takeover import exits_in_hands, in_hands
from app.service.under_way import is_named


@dataclass(frozen=True, slots=True)
class Target:
    contract: Contract | Order
    freeze: int | None
    explanation: str
    denial: Denial | None


def choose(desk: Desk, job: Job) -> Target:
    """One held match is it, also after its rule has rolled on. Several: the rule's if held, else a "no"."""
    alert = job.alert
    ruled = _ruled(desk, job)
    with desk.store.read(job.budget.send) as tx:
        found = {
            order.ticker: order for order in meant(tx, desk.scope, job, ruled.contract if ruled else None)
        }
    if not found:
        contract = ruled.contract if ruled else unknown_contract(alert, job.today)
        reason = "nothing of this client's orders is held, and nothing is under way"
        return Target(contract, None, "", Denial("nothing_to_exit", reason))
    if len(found) == 1:
        (order,) = found.values()
    elif ruled and ruled.contract.ticker in found:
        order = found[ruled.contract.ticker]
    else:
        listed = ", ".join(sorted(found))
        reason = f"several contracts fit: {listed}; name the expiry as a date"
        first = found[min(found)]
        return Target(first, None, "", Denial("ambiguous_exit", reason))
    text = f"EXIT closes what is held: {order.ticker}, expiry {order.expiry:%d %b %Y}"
    return Target(order, _freeze(desk, job, order, ruled), text, None)


def _ruled(desk: Desk, job: Job) -> Resolved | None:
    alert = job.alert
    try:
        found = desk.contracts.resolve(
            alert.symbol, alert.strike, alert.option_type, alert.expiry, alert.exchange, job.now
        )
    except NoMaster:
        return None
    return found if isinstance(found, Resolved) else None


def _freeze(desk: Desk, job: Job, order: Order, ruled: Resolved | None) -> int | None:
    """The freeze quantity where the master knows it. An exit does not need it."""
    if ruled is not None and ruled.contract.ticker == order.ticker:
        return ruled.contract.freeze
    try:
        found = desk.contracts.resolve(
            order.underlying, order.strike, order.option_type, order.expiry, order.exchange, job.now
        )
    except NoMaster:
        return None
    return found.contract.freeze if isinstance(found, Resolved) else None


def meant(tx: Transaction, scope: Scope, job: Job, ruled: Contract | Order | None) -> list[Order]:
    """One row at least of every contract that the client (or everybody) holds or has under way, and the EXIT may mean."""
    client, product = (None if job.all_clients else job.alert.client), job.alert.product
    rows = [
        o
        for o in tx.open_orders(scope, client)
        if o.product is product and o.status is not Status.EXIT_PENDING
    ]
    for holding in tx.holdings(scope, client):
        if holding.product is product:
            rows += tx.orders_in(scope, holding.ticker, product)[-1:]
    if client is not None:
        rows += [o for o in exits_in_hands(tx, scope, client) if o.product is product]
    underlying = ruled.underlying if ruled else None
    return [o for o in rows if is_named(job.alert, o, underlying) and o.session_end > job.now]


def is_against_own(tx: Transaction, job: Job, scope: Scope, contract: Contract) -> bool:
    """Whether a BUY or SELL may be the exit of what the client holds here, or has under way."""
    client, product, side = job.alert.client, job.alert.product, Side(job.alert.action.value)
    stake = tx.stake(scope, client, contract.ticker, product)
    if stake.net_quantity * side.sign < 0 or side.opposite in stake.entering:
        return True
    if stake.net_quantity == 0 and side.opposite in stake.unsent:
        return True
    return stake.operator_exits and in_hands(tx, scope, client, contract.ticker, product) * side.sign < 0
