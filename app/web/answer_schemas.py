"""The shapes of all answers, for /openapi.json. `answers.py` writes them; a test holds the two together.

Every shape is closed: a field that an answer has and the document does not know fails that test.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from app.domain.alert import Exchange, OptionType, Product
from app.domain.order import Mode, Protection, Purpose, Side
from app.domain.risk import TradingState
from app.domain.status import Status

Money = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", description="rupees as text, exact")]


class Shape(BaseModel):
    """A field without a default is always there, be it null."""

    model_config = ConfigDict(extra="forbid")


class FieldProblem(Shape):
    field: str
    message: str


class Problem(Shape):
    """RFC 9457 problem details. `code` is stable; `outcome` says what became of the alert."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    outcome: Literal["refused", "unavailable", "denied", "rejected", "not_placed"]
    request_id: str
    errors: list[FieldProblem]
    order_id: str = Field("", description="where an order row exists: denied, rejected, or not sent")
    mode: Mode | None = Field(None, description="with `order_id` only")
    warnings: list[str] = Field([], description="with `order_id` only")


class OrderView(Shape):
    """An order as it stands. Times are IST."""

    status: Literal["accepted", "in_doubt", "exit_pending", "denied", "rejected", "not_placed", "unavailable"]
    state: Status
    mode: Mode
    order_id: str
    broker_order_id: str | None
    symbol: str = Field(description="the broker's symbol of the contract; empty when none was found")
    purpose: Purpose
    side: Side
    quantity: int = Field(description="contracts")
    product: Product
    ltp: Money | None
    stop_loss: Money | None
    take_profit: Money | None
    protection: Protection
    filled_quantity: int
    fill_price: Money | None
    code: str | None
    reason: str | None
    client: str
    strategy: str
    tag: str
    attempt: int
    created_at: datetime | None
    explanation: str
    warnings: list[str]


class OrderAnswer(OrderView):
    """The answer to an alert that became an order: accepted (200), in doubt or an exit that waits (202)."""

    status: Literal["accepted", "in_doubt", "exit_pending"]
    request_id: str


class EventView(Shape):
    sequence: int
    event: str
    at: datetime | None
    state: Status | None
    detail: dict[str, Any]


class OrderTimeline(OrderView):
    events: list[EventView]


class OrderList(Shape):
    orders: list[OrderView]
    next_cursor: str | None = Field(description="for the next, older page; null on the last")


class ContractView(Shape):
    symbol: str = Field(description="the broker's symbol of the contract")
    exchange: Exchange
    underlying: str
    underlying_symbol: str | None
    expiry: date
    session_end: datetime
    strike: Money
    type: OptionType
    lot: int
    tick: Money
    freeze_quantity: int | None
    master_date: date
    explanation: str


class DenialView(Shape):
    code: str
    reason: str


class CheckVerdict(Shape):
    """One risk check. Limit and value are null where it is off or could not be asked."""

    code: str
    setting: str = Field(description="the settings that hold its limit; empty: it cannot be switched off")
    what: str
    limit: str | None
    value: str | None
    ok: bool
    reason: str | None


class CheckAnswer(Shape):
    """What would become of the alert. A field that was not reached is null."""

    would_send: bool
    denial: DenialView | None
    symbol: str | None
    explanation: str | None
    quantity: int | None
    lots: int | None
    ltp: Money | None
    stop_loss: Money | None
    take_profit: Money | None
    checks: list[CheckVerdict]
    warnings: list[str]


class RefusalView(Shape):
    at: datetime
    address: str
    client: str | None
    status: int
    code: str
    detail: str
    body_hash: str
    fields: dict[str, str]
    request_id: str


class RefusalList(Shape):
    refused: list[RefusalView]


class StateChangeView(Shape):
    state: TradingState
    by: str
    reason: str
    at: datetime


class StrangerView(Shape):
    """An order at the broker that came by the API and is none of ours."""

    broker_order_id: str
    symbol: str
    side: Side
    quantity: int
    product: str
    tag: str | None
    placed_at: datetime
    acknowledged_by: str | None


class StateView(StateChangeView):
    history: list[StateChangeView] = Field(description="newest first")
    strangers: list[StrangerView] = Field(description="those that nobody has looked at")


class StateSetView(StateChangeView):
    changed: bool = Field(description="false: it was that already")
    acknowledged: list[StrangerView] = Field(description="the strangers that resuming has acknowledged")


class KillAnswer(Shape):
    """What the kill switch did. Each problem is something that a person has to look at."""

    state: Literal["HALTED"]
    cancelled: list[str] = Field(description="order ids")
    exits: list[OrderView]
    closed_by_hand: list[str] = Field(description="positions that this service has not opened")
    problems: list[str]


class HeartbeatAnswer(Shape):
    """A heartbeat was kept. It is never an order."""

    status: Literal["ok"]
    strategy: str
    missing_after: str = Field(description="IST; counted within the session only")


class WebhookAnswer(RootModel[OrderAnswer | HeartbeatAnswer]):
    """An order as it stands, or what a heartbeat gets."""


class JobAnswer(Shape):
    job: str
    result: str = Field(description="one line for a person")


class Health(Shape):
    status: Literal["ok"]


class TokenTimes(Shape):
    obtained_at: str
    ends_at: str


class ContractIndex(Shape):
    built_at: str
    age_seconds: int
    rows: int
    skipped: int = Field(description="bad rows that were left out")
    files: dict[str, str] = Field(description="each source file's newest inside date")


class Readiness(Shape):
    ready: bool
    can_place_orders: bool
    mode: Mode
    checks: dict[str, str] = Field(
        description="per check: ok, slow or not ok; with the admin token what is wrong"
    )
    master: ContractIndex | None = Field(
        None, description="the contract index, where there is one; admin token"
    )
    token: TokenTimes | None = Field(None, description="age and end of the stored broker token; admin token")
