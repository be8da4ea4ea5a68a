"""`flask --app app.wsgi halt` and `risk`: the kill switch, and what stands between an alert and an order."""

from __future__ import annotations

from datetime import time
from decimal import Decimal

import click
from flask import Flask

from app.cli.orders import MEANS, REASON, by, desk_of
from app.cli.words import Command, Group, table, when
from app.domain.limits import PositionPolicy
from app.domain.risk import CHECKS, TradingState
from app.errors import FieldError, InvalidAlert
from app.runtime import in_force
from app.service.by_hand import Done
from app.service.control import Control
from app.service.flatten import TYPED_OUT, KillSwitch, typed_out
from app.settings import Settings
from app.web.ports import Ports

COUNTED = (
    ("cap_orders_minute", "RISK_MAX_ORDERS_PER_MINUTE", "entries in a minute"),
    ("cap_orders_hour", "RISK_MAX_ORDERS_PER_HOUR", "entries in an hour"),
    ("cap_orders_day", "RISK_MAX_ORDERS_PER_DAY", "entries in a day"),
    ("cap_lots_day", "RISK_MAX_LOTS_PER_DAY", "lots in a day"),
    ("cap_contracts_day", "RISK_MAX_CONTRACTS_PER_DAY", "contracts in a day"),
    ("daily_loss", "RISK_MAX_DAILY_LOSS", "the day's loss, which turns the trading state to REDUCING"),
)
"""Limits that are no checks of one proposal: counters of the store, and the loss that the reconciler watches."""


def register(app: Flask) -> None:
    ports: Ports = app.extensions["ports"]
    app.cli.add_command(_halt(ports))
    app.cli.add_command(_risk(ports))


def _halt(ports: Ports) -> click.Command:
    @click.command("halt", cls=Command)
    @REASON
    @click.option(
        "--cancel", is_flag=True, help="Then cancel every working order of this service, exits too."
    )
    @click.option(
        "--flatten", is_flag=True, help="Then cancel working entries and exit all that this service opened."
    )
    @click.option(
        "--all-positions",
        "typed",
        default="",
        metavar=f'"{TYPED_OUT}"',
        help="With --flatten, typed out: close also what was opened by hand.",
    )
    @click.pass_context
    def halt(context: click.Context, reason: str, cancel: bool, flatten: bool, typed: str) -> None:
        """No alert sends anything; the admin's exits and cancels still do."""
        if cancel and flatten:
            raise InvalidAlert((FieldError("--cancel", "expected one of --cancel and --flatten, was both"),))
        everything = typed_out(typed, flatten=flatten)
        desk, who = desk_of(ports), by()
        halted = Control(desk).set_state(TradingState.HALTED, who, reason)
        if halted.changed:
            click.echo(f"{halted.now.state} from now on: {MEANS[halted.now.state]}")
        else:
            click.echo(f"it was {halted.now.state} already, since {when(halted.now.at)}, by {halted.now.by}")
        if not cancel and not flatten:
            return
        switch = KillSwitch(desk)
        done = (
            switch.flatten(who, reason, all_positions=everything) if flatten else switch.cancel(who, reason)
        )
        click.echo(_told(done))
        if done.problems:
            click.echo("look again: flask --app app.wsgi orders list --in-doubt", err=True)
            context.exit(1)

    return halt


def _told(done: Done) -> str:
    lines = [f"cancelled {ident}" for ident in done.cancelled]
    lines += [f"exit {o.id}: {o.side} {o.quantity} {o.ticker} {o.product}: {o.status}" for o in done.exits]
    lines += [f"closed by hand: {line}" for line in done.closed_by_hand]
    lines += [f"PROBLEM {line}" for line in done.problems]
    return "\n".join(lines) or "nothing was working, nothing was held"


def _risk(ports: Ports) -> click.Group:
    @click.group("risk", cls=Group)
    def risk() -> None:
        """What stands between an alert and an order."""

    @risk.command("list", cls=Command)
    def listing() -> None:
        """Every check in the order in which they are asked, with its limit."""
        now = in_force(ports.settings, ports.config)
        rows = [
            (c.code, _limit(now, c.setting), "yes" if c.stops_exits else "no", c.setting, c.doc)
            for c in CHECKS
        ]
        rows += [(code, _limit(now, name), "no", name, doc) for code, name, doc in COUNTED]
        click.echo(table(("CODE", "LIMIT", "STOPS EXITS", "SETTING", "WHAT"), rows))

    return risk


def _limit(settings: Settings, names: str) -> str:
    if not names:
        return "always on"
    values = [_value(settings, name.lower()) for name in names.split(", ")]
    return "; ".join(v for v in values if v) or "off"


def _value(settings: Settings, name: str) -> str:
    value = settings.hours_enforced if name == "enforce_market_hours" else getattr(settings, name)
    match value:
        case None | False | PositionPolicy.ANY:
            return ""
        case True:
            return "on"
        case Decimal():
            return f"{value:f}"
        case time():
            needs = name == "risk_intraday_cutoff" and not settings.hours_enforced
            return "" if needs else f"{value:%H:%M} IST"
        case (orders, seconds):
            return f"{orders}/{seconds}s"
        case frozenset():
            return ", ".join(sorted(value)) or "none"
        case dict():
            return ", ".join(f"{k} {v}" for k, v in value.items())
        case _:
            return str(value)
