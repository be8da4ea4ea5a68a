"""`flask --app app.wsgi …`: what a person asks of orders, the trading state, strangers and jobs."""

from __future__ import annotations

import os
import pwd
from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal

import click
from flask import Flask

from app.cli.words import WHY_WIDTH, Command, Group, about, choice, row, several, table, when
from app.domain.order import Order
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NotFound
from app.jobs.run import JOBS, run_job
from app.service.control import BY_HAND, Control, Resolution
from app.service.desk import Desk
from app.service.job_runs import JobRun
from app.service.records import OrderFilter, StateChange, Stranger
from app.web.ports import Ports

REASON = click.option("--reason", required=True, help="Why; kept with your name.")
DATE = click.DateTime(["%Y-%m-%d"])


def by() -> str:
    """Who it is by the operating system, not by a variable that anybody can set."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container's bare number
        return f"cli:{os.getuid()}"


def desk_of(ports: Ports) -> Desk:
    """The desk; a tag prefix that is not this database's is the operator's to mend, and no reason for a trace."""
    try:
        return ports.desk()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def register(app: Flask) -> None:
    ports: Ports = app.extensions["ports"]
    app.cli.add_command(_orders(ports))
    app.cli.add_command(_state(ports))
    app.cli.add_command(_strangers(ports))
    app.cli.add_command(_jobs(ports))
    for name, state, what in (
        ("reduce", TradingState.REDUCING, "No entries; exits and cancels still pass."),
        ("resume", TradingState.ACTIVE, "Trade again. Says that you have looked at the strangers."),
    ):
        app.cli.add_command(_setting(ports, name, state, what))


def _orders(ports: Ports) -> click.Group:
    @click.group("orders", cls=Group)
    def orders() -> None:
        """Look at orders, and settle what nothing could prove."""

    @orders.command("list", cls=Command)
    @click.option("--in-doubt", is_flag=True, help="Only those that somebody has to settle.")
    @click.option("--date", "day", type=DATE, help="An IST date, e.g. 2026-12-29.")
    @click.option("--status", type=choice(Status), help="Only those in this state.")
    @click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
    def listing(in_doubt: bool, day: datetime | None, status: Status | None, limit: int) -> None:
        """Orders, newest first."""
        on = None if day is None else day.date()
        if in_doubt:
            found = Control(desk_of(ports)).in_doubt()
            found = tuple(o for o in found if on in (None, o.ist_date) and status in (None, o.status))
            more, found = len(found) > limit, found[:limit]
        else:
            wanted = OrderFilter(date_from=on, date_to=on, status=status, limit=limit)
            page = ports.store.list_orders(ports.scope, wanted)
            found, more = page.items, page.next_cursor is not None
        if not found:
            click.echo(_none(ports, in_doubt, on, status))
            return
        click.echo(table(("TIME (IST)", "ORDER", "STATE", "WHAT", "FILLED", "WHY"), [row(o) for o in found]))
        if more:
            click.echo(f"… and older ones: --limit shows more than {limit}")
        if in_doubt:
            click.echo("The whole story: flask --app app.wsgi orders show ORDER")

    @orders.command("show", cls=Command)
    @click.argument("order")
    def show(order: str) -> None:
        """One order with everything that happened to it."""
        found = _found(ports, order)
        click.echo(about(found, ports.store.events(ports.scope, found.id)))
        if found.status in BY_HAND:
            click.echo(
                f'\nTo settle it: flask --app app.wsgi orders resolve {found.id} --as STATE --reason "…"'
            )

    @orders.command("resolve", cls=Command)
    @click.argument("order")
    @click.option("--as", "status", type=choice(Status), required=True, help="What became of it.")
    @REASON
    @click.option("--filled", type=click.IntRange(0), help="How many contracts have traded.")
    @click.option("--price", type=str, help="At what average price.")
    def resolve(order: str, status: Status, reason: str, filled: int | None, price: str | None) -> None:
        """Say what became of an order that nothing could prove. Look at the broker's own app first."""
        before = _found(ports, order)
        verdict = Resolution(status, by(), reason, filled, _price(price))
        after = Control(desk_of(ports)).resolve(before.id, verdict)
        filled_words = f", {after.filled_quantity} of {after.quantity} filled"
        click.echo(f"{after.id}: {before.status} -> {after.status}{filled_words} ({by()}: {reason})")

    return orders


def _found(ports: Ports, order: str) -> Order:
    with ports.store.read() as tx:
        found = tx.get_order(ports.scope, order.strip().upper())
    if found is None:
        raise NotFound(f"there is no order {order} in {ports.scope.mode.value} mode: see `orders list`")
    return found


def _none(ports: Ports, in_doubt: bool, on: date | None, status: Status | None) -> str:
    words = ["no order", f"in {ports.scope.mode.value} mode"]
    words += ["is in doubt"] if in_doubt else []
    words += [f"on {on}"] if on else []
    words += [f"is {status}"] if status else []
    return " ".join(words)


def _price(text: str | None) -> Decimal | None:
    from app.web.values import number

    if text is None:
        return None
    found = number(text)
    if found is None or found <= 0:
        raise click.BadParameter(f"expected a positive number, was {text!r}", param_hint="--price")
    return found


def _state(ports: Ports) -> click.Group:
    @click.group("state", cls=Group)
    def state() -> None:
        """The trading state: ACTIVE, REDUCING or HALTED."""

    @state.command("show", cls=Command)
    @click.option("--limit", type=click.IntRange(1, 200), default=10, show_default=True)
    def show(limit: int) -> None:
        """The state now, who set it and why, and what it was before."""
        desk_of(ports)  # the first look of all finds the state that a first start would make
        with ports.store.read() as tx:
            now, history = tx.state_change(ports.scope), tx.state_history(ports.scope, limit)
            strangers = tx.strangers(ports.scope, acknowledged=False)
        click.echo(f"{now.state} ({ports.scope.mode.value} mode): {MEANS[now.state]}")
        click.echo(f"since {when(now.at)}, by {now.by or 'nobody'}: {now.reason}")
        if strangers:
            click.echo(
                f"to be looked at, {several(len(strangers), 'stranger')}: flask --app app.wsgi strangers"
            )
        click.echo("\n" + table(("TIME (IST)", "STATE", "BY", "WHY"), [_change(c) for c in history]))

    return state


MEANS = {
    TradingState.ACTIVE: "entries and exits pass",
    TradingState.REDUCING: "no entries; exits and cancels pass",
    TradingState.HALTED: "no alert sends anything; the admin's exits and cancels pass",
}


def _change(change: StateChange) -> tuple[str, ...]:
    return when(change.at), change.state.value, change.by, change.reason


def _setting(ports: Ports, name: str, state: TradingState, what: str) -> click.Command:
    @click.command(name, cls=Command, help=what)
    @REASON
    def setting(reason: str) -> None:
        done = Control(desk_of(ports)).set_state(state, by(), reason)
        if done.changed:
            click.echo(f"{done.now.state} from now on: {MEANS[done.now.state]}")
        else:
            click.echo(f"it was {done.now.state} already, since {when(done.now.at)}, by {done.now.by}")
        if done.acknowledged:
            click.echo(
                f"acknowledged {several(len(done.acknowledged), 'stranger')}:\n{_listed(done.acknowledged)}"
            )

    return setting


def _strangers(ports: Ports) -> click.Command:
    @click.command("strangers", cls=Command)
    @click.option("--all", "everyone", is_flag=True, help="Also those that a person has looked at.")
    def strangers(everyone: bool) -> None:
        """Orders at the broker that came by the API and are none of ours."""
        with ports.store.read() as tx:
            found = tx.strangers(ports.scope, acknowledged=None if everyone else False)
        if not found:
            click.echo("no strangers" if everyone else "no strangers wait for a look")
            return
        click.echo(_listed(found))
        if any(s.acknowledged_by is None for s in found):
            click.echo('Look at them in the broker\'s app; then: flask --app app.wsgi resume --reason "…"')

    return strangers


def _listed(strangers: tuple[Stranger, ...]) -> str:
    rows = [
        (
            when(s.placed_at),
            s.broker_order_id,
            f"{s.side} {s.quantity} {s.ticker} {s.product}",
            s.tag or "",
            s.acknowledged_by or "",
        )
        for s in strangers
    ]
    return table(("PLACED (IST)", "BROKER'S ID", "WHAT", "TAG", "ACKNOWLEDGED BY"), rows)


def last_run(run: JobRun | None) -> tuple[str, str]:
    """When, and what it came to, on one line."""
    if run is None:
        return "never", ""
    word = "running" if run.ended_at is None else "" if run.ok else "FAILED: "
    where = f"{run.host}: " if run.host else ""
    result = " ".join(f"{where}{word}{run.result}".split())
    return when(run.started_at), result if len(result) <= WHY_WIDTH else result[:WHY_WIDTH] + "…"


def _jobs(ports: Ports) -> click.Group:
    @click.group("jobs", cls=Group)
    def jobs() -> None:
        """What runs on a timer beside the requests."""

    @jobs.command("list", cls=Command)
    def listing() -> None:
        """All jobs: when they run, and what the last run came to."""
        runs: dict[str, list[JobRun | None]] = defaultdict(list)
        none: list[JobRun | None] = [None]
        for run in ports.beside.job_runs.last() if ports.beside is not None else ():
            runs[run.name].append(run)
        rows = [
            (job.name, job.when(ports), *last_run(run), (job.run.__doc__ or "").strip().splitlines()[0])
            for job in JOBS.values()
            for run in runs.get(job.name, none)
        ]
        click.echo(table(("JOB", "WHEN", "LAST RUN (IST)", "CAME TO", "WHAT"), rows))

    @jobs.command("run", cls=Command)
    @click.argument("name")
    def run(name: str) -> None:
        """Run one now, once. `jobs list` has the names."""
        if name not in JOBS:
            raise NotFound(f"there is no job {name!r}: {', '.join(sorted(JOBS))}")
        desk_of(ports)
        click.echo(f"{name}: {run_job(ports, name)}")

    return jobs
