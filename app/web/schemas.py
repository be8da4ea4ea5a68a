"""Wire bodies to domain alerts: the only home of wire field names."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.domain.alert import (
    MAX_LOTS,
    Action,
    Alert,
    Exchange,
    ExpiryRule,
    OptionType,
    Product,
    canonical_hash,
    key_of,
)
from app.errors import FieldError, InvalidAlert
from app.service.observe import SECRET, masked
from app.web.values import MAX_TEXT, kept, number, shown

MAX_KEY = 200
MAX_QUANTITY = 1_000_000
MAX_STRIKE = Decimal(10_000_000)
TOKEN = "token"  # noqa: S105 - a field's name
AS_GIVEN = frozenset({TOKEN, "idempotency_key"})
"""Neither is shown or kept. Two keys must stay two, whatever stands in them: kept is a hash."""
_WHOLE = re.compile(r"\+?[0-9]{1,9}(\.0{1,8})?", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\{[^{}]*\}\}")
_SYMBOL = re.compile(r"[A-Z0-9&_-]{1,32}", re.ASCII)
_DELAYED = re.compile(r"_DLY?$")
M = TypeVar("M", bound=BaseModel)


class AlertBody(BaseModel):
    """One alert as TradingView sends it. Names and enum values are matched without regard to case."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, title="Alert")

    token: str | None = Field(None, description="the client's token; not needed with a bearer header")
    symbol: str = Field(description="the underlying, e.g. NIFTY", examples=["NIFTY"])
    strikeprice: Decimal = Field(description="the strike in rupees", gt=0, le=MAX_STRIKE, examples=[24500])
    optionType: OptionType  # noqa: N815 - the wire's name
    expiry: ExpiryRule | date = Field(description="WEEKLY, NEXT_WEEKLY, MONTHLY, NEXT_MONTHLY or an ISO date")
    action: Action
    qty: int | None = Field(None, description="contracts", gt=0, le=MAX_QUANTITY)
    lots: int | None = Field(None, description="lots; exactly one of qty and lots", gt=0, le=MAX_LOTS)
    productType: Product | None = None  # noqa: N815 - the wire's name
    exchange: Exchange | None = None
    sl: Decimal | None = Field(None, description="accepted and overridden")
    tp: Decimal | None = Field(None, description="accepted and overridden")
    price: Decimal | None = Field(
        None,
        description="the chart's price at the signal, {{close}} or {{strategy.order.price}}: only measured with",
    )
    strategy: str = Field("", max_length=MAX_TEXT)
    fired_at: datetime | None = None
    idempotency_key: str | None = Field(None, min_length=1, max_length=MAX_KEY)
    ticker: str | None = Field(
        None, description="TradingView's ticker, to notice a delayed feed", max_length=MAX_TEXT
    )

    @field_validator("symbol", mode="before")
    @classmethod
    def _symbol(cls, value: object) -> object:
        name = value.strip().upper() if isinstance(value, str) else ""
        if not _SYMBOL.fullmatch(name):
            raise ValueError(f"expected an underlying like NIFTY, was {shown(value)}")
        return name

    @field_validator("optionType", "action", "productType", "exchange", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("expiry", mode="before")
    @classmethod
    def _expiry(cls, value: object) -> object:
        text = value.strip().upper() if isinstance(value, str) else ""
        if text in ExpiryRule.__members__:
            return ExpiryRule(text)
        try:
            if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
                return date.fromisoformat(text)
        except ValueError:
            pass
        rules = ", ".join(ExpiryRule)
        raise ValueError(f"expected {rules} or a date like 2026-12-29, was {shown(value)}")

    @field_validator("strikeprice", mode="before")
    @classmethod
    def _strike(cls, value: object) -> object:
        found = number(value)
        if found is None or not 0 < found <= MAX_STRIKE:
            raise ValueError(f"expected a positive number up to {MAX_STRIKE}, was {shown(value)}")
        return found

    @field_validator("qty", "lots", mode="before")
    @classmethod
    def _whole(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            return None
        most = MAX_LOTS if info.field_name == "lots" else MAX_QUANTITY
        if isinstance(value, str) and not _WHOLE.fullmatch(value.strip(" ")):
            raise ValueError(f"expected a positive whole number, was {shown(value)}")
        found = number(value)
        if found is None or found != found.to_integral_value() or not 0 < found <= most:
            raise ValueError(f"expected a positive whole number up to {most}, was {shown(value)}")
        return int(found)

    @field_validator("sl", "tp", "price", mode="before")
    @classmethod
    def _never_raises(cls, value: object, info: ValidationInfo) -> object:
        found = number(value)
        if info.field_name == "price" and found is not None and not 0 < found <= MAX_STRIKE:
            return None
        return found

    @field_validator("strategy", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if value is None:
            return ""
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        return masked(str(value)) if is_number else value

    @field_validator("ticker", mode="before")
    @classmethod
    def _ticker(cls, value: object) -> object:
        return value[:MAX_TEXT] if isinstance(value, str) else None

    @field_validator("idempotency_key", mode="before")
    @classmethod
    def _key(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("fired_at", mode="after")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("expected a time with its zone, as {{timenow}} writes it")
        try:
            return value.astimezone(UTC)
        except OverflowError:  # in the first or last hours of what a datetime can hold
            raise ValueError(f"expected a time of this century, was {value.isoformat()}") from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_placeholder(cls, value: object, info: ValidationInfo) -> object:
        """Stands last, because the validator that stands last runs first: its message is the one that helps."""
        if info.field_name in ("sl", "tp", "price"):
            return value  # never a reason to refuse: nothing goes by them
        if isinstance(value, str) and (found := _PLACEHOLDER.search(value)):
            raise ValueError(
                f"the placeholder {masked(found.group())[:MAX_TEXT]} was not filled in: strategy placeholders work in "
                "strategy alerts only"
            )
        if value == "" and info.field_name not in ("symbol", "token"):
            return None
        return value

    @model_validator(mode="after")
    def _quantity(self) -> AlertBody:
        if self.qty is not None and self.lots is not None:
            raise ValueError("qty: expected exactly one of qty and lots, was both")
        if self.qty is None and self.lots is None and self.action is not Action.EXIT:
            raise ValueError("qty: expected exactly one of qty and lots, was neither")
        return self


_NAMES = {name.lower(): name for name in AlertBody.model_fields}


def _renamed(body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The body under our spelling of the names, and the fields that we do not know."""
    known: dict[str, Any] = {}
    unknown = []
    for key, value in body.items():
        name = _NAMES.get(key.lower())
        if name is None:
            unknown.append(key)
        elif name in known:
            raise InvalidAlert((FieldError(name, "the field stands twice, in two spellings"),))
        else:
            known[name] = value
    return known, unknown


def _feed_delayed(fields: dict[str, Any]) -> bool:
    """Take the delayed feed's suffix off the exchange; TradingView marks both exchange and ticker."""
    found = False
    for name in ("exchange", "ticker"):
        text = fields.get(name)
        if isinstance(text, str) and _DELAYED.search(head := text.upper().split(":")[0]):
            found = True
            if name == "exchange":
                fields[name] = _DELAYED.sub("", head)
    return found


def to_alert(
    body: dict[str, Any], client: str, received_at: datetime, header_key: str | None, default_product: Product
) -> Alert:
    """The alert that a body means. Raises InvalidAlert with every wrong field; the token plays no part."""
    secret_free = {k: v for k, v in body.items() if k.lower() != TOKEN}
    fields, unknown = _renamed(secret_free)
    delayed = _feed_delayed(fields)
    parsed = validated(AlertBody, fields)
    if header_key is not None and not 0 < len(header_key) <= MAX_KEY:
        raise InvalidAlert((FieldError("Idempotency-Key", f"expected 1 to {MAX_KEY} characters"),))
    warnings = [f"unknown field {shown(name)} was ignored" for name in sorted(unknown)[:20]]
    if parsed.sl is not None or parsed.tp is not None:
        warnings.append("sl and tp were overridden by levels from the last price")
    if kept(fields.get("strategy")) != fields.get("strategy"):
        warnings.append(f"strategy holds a secret, kept as {SECRET}: change that secret")
    if parsed.price is None and fields.get("price") not in (None, ""):
        warnings.append("price was no positive number: the signal's slippage is not measured")
    if delayed:
        warnings.append("the alert comes from a delayed feed")
    key = header_key or parsed.idempotency_key
    return Alert(
        client=client,
        symbol=parsed.symbol,
        strike=parsed.strikeprice,
        option_type=parsed.optionType,
        expiry=parsed.expiry,
        action=parsed.action,
        product=parsed.productType or default_product,
        key=key_of(client, key, canonical_hash(secret_free), received_at),
        received_at=received_at,
        qty=parsed.qty,
        lots=parsed.lots,
        exchange=parsed.exchange,
        strategy=parsed.strategy,
        fired_at=parsed.fired_at,
        delayed_feed=delayed,
        signal_price=parsed.price,
        warnings=tuple(warnings),
    )


def validated(model: type[M], fields: dict[str, Any]) -> M:
    """The body as its model. Raises InvalidAlert with every wrong field."""
    clear = {k: v if k in AS_GIVEN else kept(v) for k, v in fields.items()}
    try:
        return model.model_validate(clear)
    except ValidationError as error:
        raise InvalidAlert(tuple(_field_error(e) for e in error.errors())) from None


def _field_error(error: Any) -> FieldError:  # noqa: ANN401 - pydantic's own shape
    field = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    if not field and ": " in message:
        field, message = message.split(": ", 1)
    if error["type"] == "missing":
        return FieldError(field, "expected a value, the field is missing")
    if error["type"] == "extra_forbidden":
        # Without its value: a token in a body that takes none, or under a misspelt name, is still a token.
        return FieldError(field, "there is no such field")
    if field == TOKEN:
        return FieldError(field, "expected a text")
    if error["type"] == "enum":
        return FieldError(field, f"expected {error['ctx']['expected']}, was {shown(error['input'])}")
    if error["type"] != "value_error":
        message = f"{message}, was {shown(error['input'])}"
    return FieldError(field, message)
