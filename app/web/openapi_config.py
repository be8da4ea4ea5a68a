"""The shapes and routes of the runtime configuration, the experiments and the preferences, for /openapi.json."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.service.experiments import METHOD
from app.web import answer_schemas as a
from app.web.control import WHY
from app.web.openapi import LIMIT, Route

MAX_NAMES = 100
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
Percent = Annotated[Decimal, Field(gt=0, max_digits=9, decimal_places=4)]
COLUMNS = frozenset(a.OrderView.model_fields)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FlagBody(Body):
    percent: int = Field(100, ge=0, le=100, strict=True, description="of the strategies, by a stable hash")
    on: list[Word] = Field([], max_length=MAX_NAMES, description="strategies for which it is on anyway")
    off: list[Word] = Field([], max_length=MAX_NAMES, description="strategies for which it is off anyway")


class ConfigBody(Body):
    """What is to be different, and why. What is not named stays."""

    settings: dict[str, Any] = Field(
        {},
        max_length=MAX_NAMES,
        description="by the environment's names, values as there; empty: a risk limit is off; null: the environment's",
    )
    flags: dict[str, FlagBody] = Field({}, max_length=MAX_NAMES)
    reason: str = WHY


class RollbackBody(Body):
    version: int = Field(ge=0, strict=True, description="0: all as the environment says")
    reason: str = WHY


class VariantBody(Body):
    name: Word
    weight: int = Field(1, strict=True)
    sl_percent: Percent | None = Field(None, description="null: SL_PERCENT")
    tp_percent: Percent | None = Field(None, description="null: TP_PERCENT")
    kind: Literal["MARKET", "LIMIT"] = Field("MARKET", description="LIMIT: at the touch")


class ExperimentBody(Body):
    variants: list[VariantBody] = Field(min_length=2, max_length=10)
    strategies: list[Word] | None = Field(None, max_length=MAX_NAMES, description="null: all")
    running: bool = Field(True, strict=True, description="false: no further order comes into it")
    reason: str = WHY


class Preferences(Body):
    """How a client wants to see things. The columns are fields of an order."""

    time_zone: str = Field("Asia/Kolkata", max_length=64)
    columns: list[str] = Field(["created_at", "state", "side", "symbol", "quantity", "reason"], max_length=30)
    channels: list[Word] = Field(
        [],
        max_length=20,
        description="where notices about this client's orders go: a channel's number in NOTIFY_URLS, its kind (tgram), or both "
        "(1 tgram); empty: as the operator has set. Pages go to the operator in any case",
    )

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("expected a time zone like Asia/Kolkata") from None
        return value

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - COLUMNS)
        if unknown or len(set(value)) != len(value):
            raise ValueError(f"expected each once, of {', '.join(sorted(COLUMNS))}")
        return value


class ChangeView(a.Shape):
    name: str
    old: str
    new: str


class VersionView(a.Shape):
    """Version 0 is the environment's settings, as they are: nobody made it."""

    version: int
    at: datetime | None
    by: str
    reason: str
    changes: list[ChangeView]


class VersionSetView(VersionView):
    changed: bool = Field(description="false: it was all so already, and this is the newest version")


class SettingView(a.Shape):
    name: str
    value: str = Field(description="in force; empty: off")
    environment: str
    is_set: bool = Field(description="here, over the environment's")


class FlagView(a.Shape):
    name: str
    what: str
    percent: int
    on: list[str]
    off: list[str]


class ConfigView(VersionView):
    settings: list[SettingView]
    flags: list[FlagView]


class HistoryView(a.Shape):
    versions: list[VersionView] = Field(description="newest first")


class VariantView(a.Shape):
    name: str
    weight: int
    sl_percent: str | None
    tp_percent: str | None
    kind: Literal["MARKET", "LIMIT"]


class ExperimentView(a.Shape):
    name: str
    running: bool
    strategies: list[str] | None = Field(description="null: all")
    variants: list[VariantView]


class ExperimentList(a.Shape):
    experiments: list[ExperimentView]


class EstimateView(a.Shape):
    """With a 95 % interval; null where there are too few values."""

    count: int
    value: float | None
    low: float | None
    high: float | None


class VariantReportView(a.Shape):
    name: str
    weight: int
    orders: int
    filled: int
    slippage: EstimateView = Field(description="rupees per contract, above zero: worse than the last price")
    still_open: int
    unpriced: int = Field(description="round trips closed outside our orders: by a protective leg, by hand")
    hit_rate: EstimateView
    profit: EstimateView = Field(description="rupees per priced round trip")
    profit_total: a.Money


class ReportView(a.Shape):
    experiment: ExperimentView
    variants: list[VariantReportView]
    method: str = Field(description=METHOD)


NAME = ({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},)
CHANGED: dict[int, type[BaseModel] | None] = {200: VersionSetView}
CONFIG_ROUTES: tuple[Route, ...] = (
    Route(
        "get",
        "/api/v1/config",
        "What may be changed while running; admin token",
        {200: ConfigView},
        (401, 403, 429, 503),
    ),
    Route(
        "put",
        "/api/v1/config",
        "Change settings and flags, on all instances within a second; admin token",
        CHANGED,
        (400, 401, 403, 409, 413, 429, 503),
        body=ConfigBody,
    ),
    Route(
        "get",
        "/api/v1/config/history",
        "Who changed what, when and why; admin token",
        {200: HistoryView},
        (400, 401, 403, 429, 503),
        (LIMIT,),
    ),
    Route(
        "post",
        "/api/v1/config/rollback",
        "All as it was at a version, as a new version; admin token",
        CHANGED,
        (400, 401, 403, 404, 409, 413, 429, 503),
        body=RollbackBody,
    ),
    Route(
        "get",
        "/api/v1/experiments",
        "All experiments; admin token",
        {200: ExperimentList},
        (401, 403, 429, 503),
    ),
    Route(
        "put",
        "/api/v1/experiments/{name}",
        "Start, stop or narrow an experiment; admin token",
        CHANGED,
        (400, 401, 403, 409, 413, 429, 503),
        NAME,
        ExperimentBody,
    ),
    Route(
        "get",
        "/api/v1/experiments/{name}/report",
        "The variants compared; admin token",
        {200: ReportView},
        (401, 403, 404, 429, 503),
        NAME,
    ),
    Route(
        "get",
        "/api/v1/preferences",
        "The calling client's preferences",
        {200: Preferences},
        (401, 403, 429, 503),
    ),
    Route(
        "put",
        "/api/v1/preferences",
        "Keep the calling client's preferences",
        {200: Preferences},
        (400, 401, 403, 413, 429, 503),
        body=Preferences,
    ),
)
