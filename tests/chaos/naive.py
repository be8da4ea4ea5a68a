"""What typical bots do: call the broker, then write down what came of it. The harness must catch it."""

from __future__ import annotations

from dataclasses import replace

from app.domain.order import Order
from app.domain.risk import Proposal
from app.service.desk import Answer, Desk
from app.service.intent import Job, claim, put_sending
from app.service.place_order import PlaceOrder
from app.service.send import armed, call_once, record


class NaivePlaceOrder(PlaceOrder):
    """Without a crash it works, repeats and all; only its intent is written after the call, and its start waits for
    no reconciliation (which would find the order, and halt).
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(replace(desk, reconciled=lambda _: True))

    def _commit(
        self, job: Job, order: Order, proposal: Proposal, *, was_against: bool
    ) -> tuple[Answer, None]:
        desk = self.desk
        with desk.store.read(job.budget.send) as tx:
            order = armed(desk, tx, order, job.budget)
        outcome = call_once(
            desk, job.budget, lambda x, _: x.place(order.ticket(), lambda: None), lambda: None
        )
        with desk.store.write() as tx:
            repeat = claim(desk, tx, job, order.id)
            if repeat is not None:
                return repeat, None
            put_sending(tx, job, order)
        return record(desk, order, outcome, job.budget), None
