"""`flask --app app.wsgi slo`: what was promised, what was kept, and how much may still go wrong."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import click
from flask import Flask

from app.cli.words import Command, several, table, when
from app.domain.contract import ist_date
from app.domain.order import Order
from app.service.slo import MEANING, TARGET, Report, Score, report
from app.web.ports import Ports

KEPT_REFUSALS = 1000
"""As many as the store keeps (app/store/sql.py)."""
MOST_DAYS = 366
SHOWN = 10


def register(app: Flask) -> None:
    ports: Ports = app.extensions["ports"]

    @app.cli.command("slo", cls=Command)
    @click.option(
        "--days", type=click.IntRange(1, MOST_DAYS), default=30, show_default=True, help="How far back."
    )
    def slo(days: int) -> None:
        """What the service promises, how well it kept it, and how much of the error budget is left."""
        for line in told(report_of(ports, days), days, ports.scope.mode.value):
            click.echo(line)


def report_of(ports: Ports, days: int) -> Report:
    with ports.store.read() as tx:
        now = tx.now()
    since = now - timedelta(days=days)
    orders: list[Order] = []
    for day in _days(since, now):
        with (
            ports.store.read() as tx
        ):  # one short transaction a day: a month in one would hold up a checkpoint
            orders += tx.orders_on(ports.scope, day)
    refusals = ports.store.list_refusals(ports.scope, KEPT_REFUSALS)
    if ports.audit is None:
        raise click.ClickException("there is no audit here, and the answers' times are read from it")
    with ports.audit.reading() as reading:
        entries = reading.entries(ist_date(since), ist_date(now))
        return report(since, now, ports.scope, orders, entries, refusals, KEPT_REFUSALS)


def _days(since: datetime, now: datetime) -> list[date]:
    first, last = ist_date(since), ist_date(now)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def told(found: Report, days: int, mode: str) -> list[str]:
    heads = ("OBJECTIVE", "PROMISED", "KEPT", "WENT WRONG", "ERROR BUDGET LEFT")
    rows = [_row(score) for score in found.scores]
    wrong = str(len(found.unaccounted))
    rows.append(("correctness", "none unknown", "yes" if wrong == "0" else "NO", wrong, "there is none"))
    lines = [f"The last {several(days, 'day')}, since {when(found.since)} IST ({mode})", ""]
    lines += [*table(heads, rows).splitlines(), ""]
    lines += [f"{score.objective}: {MEANING[score.objective]}" for score in found.scores]
    lines.append("correctness: no alert whose order nobody knows the fate of")
    lines.append("error budget: the failures that the promise leaves room for; below 0 % it is broken")
    if found.refusals_since is not None:
        since = when(found.refusals_since)
        lines.append(f"note: refused alerts are kept in a bounded number, and counted from {since} IST on")
    for order in found.unaccounted[:SHOWN]:
        lines.append(f"unknown fate: order {order.id} {order.ticker}, {order.status}")
    if len(found.unaccounted) > SHOWN:
        lines.append(f"and {len(found.unaccounted) - SHOWN} more: `flask --app app.wsgi orders list`")
    return lines


def _row(score: Score) -> tuple[str, ...]:
    kept = score.good_part
    return (
        score.objective.value,
        f"{TARGET[score.objective]:.1%}",
        "no alerts yet" if kept is None else f"{kept:.2%}",
        f"{score.bad} of {score.all}",
        f"{score.budget_left:.0%}",
    )
