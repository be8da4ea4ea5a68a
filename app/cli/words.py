"""How the commands talk: IST times, plain tables, and one clear line for whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import click

from app.domain.alert import IST
from app.domain.order import Order
from app.errors import ServiceError, StoreUnavailable
from app.service.records import AuditEvent
from app.telemetry.logging import to_stderr

WHY_WIDTH = 60
NO_DATABASE = "is it running, and has `flask --app app.wsgi migrate` been run?"
E = TypeVar("E", bound=StrEnum)


class Command(click.Command):
    """One clear line on stderr and exit code 1: for a wrong call and for whatever the service says no to."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, [_readable(arg) for arg in args])
        except click.UsageError as error:
            raise _plain(error) from None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        # Log lines, a notification's too, are not the answer: whoever reads stdout gets that alone.
        to_stderr()
        try:
            return super().invoke(ctx)
        except StoreUnavailable as error:
            raise click.ClickException(f"{error.detail} ({NO_DATABASE})") from None
        except ServiceError as error:
            raise click.ClickException(error.detail) from None
        except click.UsageError as error:
            raise _plain(error) from None


class Group(click.Group):
    """The same for a word that is no command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise _plain(error) from None


def _readable(arg: str) -> str:
    """A byte that is no UTF-8 is no reason not to halt: it becomes a question mark of the kept reason."""
    return arg.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _plain(error: click.UsageError) -> click.ClickException:
    return click.ClickException(f"{error.format_message().replace(chr(10), ' ')} (--help says more)")


class choice(click.ParamType[E]):  # noqa: N801 - reads like click's own
    """One of an enum's words, whatever its case."""

    name = "state"

    def __init__(self, kind: type[E]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> E:  # noqa: ANN401 - click's signature
        try:
            return self.kind(str(value).upper())
        except ValueError:
            self.fail(f"expected one of {', '.join(self.kind)}, was {value!r}", param, ctx)


def several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def when(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(IST):%Y-%m-%d %H:%M:%S}"


def _to_the_millisecond(moment: datetime) -> str:
    return moment.astimezone(IST).isoformat(" ", "milliseconds").removesuffix("+05:30")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is not padded."""
    lines = [tuple(heads), *(tuple(r) for r in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def row(order: Order) -> tuple[str, ...]:
    """An order on one line: what was wanted, how far it got, and why."""
    reason = " ".join((order.reason or "").split())
    return (
        when(order.created_at),
        order.id,
        order.status.value,
        _what(order),
        f"{order.filled_quantity}/{order.quantity}",
        reason if len(reason) <= WHY_WIDTH else reason[:WHY_WIDTH] + "…",
    )


def _what(order: Order) -> str:
    return f"{order.purpose} {order.side} {order.ticker or order.underlying} {order.product}"


def about(order: Order, events: Sequence[AuditEvent]) -> str:
    """The row, and its whole timeline."""
    lines = [
        ("order", order.id),
        ("state", order.status.value),
        ("why", " ".join((order.reason or "").split())),
        ("code", order.code or ""),
        ("mode", f"{order.scope.mode} ({order.scope.account})"),
        ("client", order.client + (f", strategy {order.strategy}" if order.strategy else "")),
        ("what", f"{order.purpose} {order.side} {order.quantity} {order.ticker or order.underlying}"),
        ("product", order.product.value),
        ("filled", f"{order.filled_quantity} of {order.quantity}{_at(order.fill_price)}"),
        ("levels", _levels(order)),
        ("protection", order.protection.value),
        ("broker's id", order.broker_order_id or "none known"),
        ("tag", order.tag),
        ("attempt", str(order.attempt)),
        ("created", when(order.created_at)),
        ("chosen", order.explanation),
        *(("warning", w) for w in order.warnings),
    ]
    head = "\n".join(f"{name:<12} {value}" for name, value in lines if value)
    told = [
        (
            _to_the_millisecond(e.at),
            e.event.value,
            e.status.value if e.status else "",
            "; ".join(f"{k}: {v}" for k, v in e.detail.items() if v),
        )
        for e in events
    ]
    return f"{head}\n\n" + table(("TIME (IST)", "EVENT", "STATE", "DETAIL"), told)


def _at(price: Decimal | None) -> str:
    return "" if price is None else f" at {price:f}"


def _levels(order: Order) -> str:
    words = [
        f"{name} {price:f}"
        for name, price in (("stop", order.stop_loss), ("target", order.take_profit))
        if price
    ]
    return ", ".join(words)
