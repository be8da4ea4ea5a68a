"""Every way in which the answer to an order can go wrong, judged by the simulator's ledger at every step.

An alert is sent at most once; what the broker took is at no moment called REJECTED or NOT_PLACED; in the end every row
is settled or a person's; the counters equal a recount; a repeat at any moment sends nothing and shows the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.domain.alert import Alert
from app.domain.order import Order
from app.domain.status import Status
from app.errors import KeyInUse
from app.service.desk import Answer
from app.service.place_order import PlaceOrder
from tests.fyers_sim import FyersSim
from tests.wire_brokers import Crash, DyingBroker
from tests.wire_desk import SOON_S, WireDesk, count_contracts, simulated, was_taken

pytestmark = pytest.mark.slow

S = Status
NO = frozenset({S.REJECTED, S.NOT_PLACED})
SETTLED = frozenset({S.FILLED, S.REJECTED, S.NOT_PLACED, S.NEEDS_REVIEW, S.CANCELLED, S.EXPIRED})
STEPS_S = (0, 2, 5, 10, 15, 15, 20, 20, 20, 20, 20, 30, 60)
NIGHT_S = 20 * 3600
"""To the next morning: the book of the send is gone, and the alert's key is still there."""


@dataclass(frozen=True)
class Case:
    """A fault and what the row may be once the book has shown a witness often enough."""

    fault: str
    end: Status
    appear_after: float | None = None
    seconds: float | None = None
    fill_mode: str = "instant"

    def __str__(self) -> str:
        late = f"-{self.appear_after:.0f}s" if self.appear_after else ""
        return (self.fault or self.fill_mode) + late


CASES = (
    Case("reset_created", S.FILLED),
    Case("reset", S.NOT_PLACED),
    Case("reset_unread", S.NOT_PLACED),
    Case("disconnect_created", S.FILLED),
    Case("disconnect", S.NOT_PLACED),
    Case("hang", S.NOT_PLACED),
    Case("hang_created", S.FILLED),
    Case("slow_created", S.FILLED, seconds=2 * SOON_S),
    Case("html_200", S.NOT_PLACED),
    Case("html_200_created", S.FILLED),
    Case("truncated", S.NOT_PLACED),
    Case("truncated_created", S.FILLED),
    Case("short_body_created", S.FILLED),
    Case("html_502", S.NOT_PLACED),
    Case("html_502_created", S.FILLED),
    Case("http_500_created", S.FILLED),
    Case("cloudflare_403_created", S.FILLED),
    Case("no_ack", S.NOT_PLACED),
    Case("no_ack_created", S.FILLED),
    Case("late_reset", S.FILLED, appear_after=3),
    Case("late_no_ack", S.FILLED, appear_after=30),
    Case("late_html_502", S.FILLED, appear_after=60),
    Case("late_reset", S.FILLED, appear_after=119),
    Case("late_hang", S.FILLED, appear_after=119),
    Case("rate_429", S.REJECTED),
    Case("auth_401", S.REJECTED),
    Case("rms_reject", S.REJECTED),
    Case("rms_reject_with_id", S.REJECTED),
    Case("", S.REJECTED, fill_mode="reject_async"),
    Case("reset_created", S.REJECTED, fill_mode="reject_async"),
    Case("drip_body", S.FILLED),
    Case("drip_headers", S.FILLED),
    Case("close_after", S.FILLED),
    Case("", S.FILLED),
)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    with simulated(tmp_path) as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, sim: FyersSim, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireDesk]:
    count_contracts(monkeypatch)
    made = WireDesk(tmp_path, sim, sim.clock, read_timeout_s=SOON_S)  # type: ignore[arg-type]
    yield made
    made.close()


def the_row(desk: WireDesk) -> Order:
    (order,) = desk.rows()
    return order


def judge(desk: WireDesk) -> Order:
    """What has to hold at any moment."""
    order = the_row(desk)
    (line,) = desk.sim.ledger.orders()
    assert line["body"] is None or line["body"].get("orderTag", order.tag) == order.tag
    assert not (was_taken(desk.sim, order) and order.status in NO), order
    desk.assert_caps()
    return order


def repeat(desk: WireDesk, alert: Alert) -> None:
    """It shows the row as it stands, or says that it is being worked on; judged by the ledger afterwards."""
    before = the_row(desk)
    try:
        answer: Answer | None = desk.deliver(alert)
    except KeyInUse:
        assert before.status is Status.SENDING
        answer = None
    assert answer is None or (answer.replayed and answer.order == before)


@pytest.mark.parametrize("crash", [False, True], ids=["lives", "dies"])
@pytest.mark.parametrize("witness", ["before", "during", "never"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_alert_is_one_order_or_a_clear_no(desk: WireDesk, case: Case, witness: str, crash: bool) -> None:
    if witness == "before":
        desk.witness()
        desk.sim_clock.advance(60)
    desk.sim.fill_mode = case.fill_mode
    if case.fault:
        desk.sim.faults.next_order(case.fault, appear_after=case.appear_after, seconds=case.seconds)
    alert = desk.an_alert(key="the alert")
    if crash:
        dying = replace(desk.desk, broker=DyingBroker(desk.broker))
        with pytest.raises(Crash):
            PlaceOrder(dying)(alert, request_id="r", started=desk.clock.monotonic())
    else:
        desk.deliver(alert)
    repeat(desk, alert)
    judge(desk)
    for seconds in STEPS_S:
        desk.pass_on(seconds, witness=witness == "during")
        judge(desk)
        repeat(desk, alert)
        judge(desk)
    seen = the_row(desk)
    if witness == "during":
        answer_died = crash and case.end is S.REJECTED and not rejected_row(desk.sim)
        assert seen.status is (S.NOT_PLACED if answer_died else case.end), seen
    elif crash and not was_taken(desk.sim, seen) and not rejected_row(desk.sim):
        assert seen.status is Status.IN_DOUBT, "absence from a book that shows nothing else proves nothing"
    desk.pass_on(NIGHT_S)
    end = judge(desk)
    assert end.status in SETTLED, end
    repeat(desk, alert)
    judge(desk)


def rejected_row(sim: FyersSim) -> bool:
    return any(o["status"] == 5 and o["source"] == "API" for o in sim.orders())
