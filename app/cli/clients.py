"""`flask --app app.wsgi clients …`: who may send, with which token, how much and for how long."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click
from flask import Flask

from app.cli.orders import by
from app.cli.words import Command, Group, table, when
from app.domain.alert import IST, MAX_LOTS, ClientLimits
from app.service.clients import Client, Clients, ClientScope, Registered, digest_of, new_token, symbols_of
from app.service.config_lists import listed
from app.web.middleware.address import networks_of
from app.web.ports import Ports

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_GRACE = timedelta(days=30)
EFFECTIVE = "in force on every instance within a second"


class Span(click.ParamType[timedelta]):
    """`90s`, `15m`, `2h`, `1d`, or 0."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401 - click's signature
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([smhd]?)", str(value).strip().lower(), re.ASCII)
        if found is None or (found[2] == "" and int(found[1]) != 0):
            self.fail(f"expected a time like 90s, 15m, 2h or 1d, or 0, was {value!r}", param, ctx)
        span = timedelta(seconds=int(found[1]) * UNITS.get(found[2], 1))
        if span > MAX_GRACE:
            self.fail(f"expected at most {MAX_GRACE.days} days, was {value!r}", param, ctx)
        return span


class Words(click.ParamType[tuple[str, ...]]):
    """A list that names something: without a limit is a client whose option was left out."""

    name = "list"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = listed(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not found:
            self.fail("expected words with commas between them, was nothing", param, ctx)
        return found


def register(app: Flask) -> None:
    app.cli.add_command(_clients(app.extensions["ports"]))


def _clients(ports: Ports) -> click.Group:
    @click.group("clients", cls=Group)
    def clients() -> None:
        """Senders with tokens of their own, beside WEBHOOK_SECRET_TOKEN's `default`."""

    _making(clients, ports)
    _ending(clients, ports)
    return clients


def _making(clients: click.Group, ports: Ports) -> None:
    @clients.command("create", cls=Command)
    @click.argument("name")
    @click.option(
        "--scope",
        "scopes",
        type=click.Choice([s.value for s in ClientScope]),
        multiple=True,
        required=True,
        help="Give it once for each: orders (send), read (look up its own), admin (everything).",
    )
    # The most is asked here and not by Client, which also reads the rows from before there was one.
    @click.option(
        "--max-lots", type=click.IntRange(1, MAX_LOTS), help="Lots in one order, below WEBHOOK_MAX_QTY."
    )
    @click.option("--symbols", type=Words(), help="Underlyings, comma-separated; without it all.")
    @click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="The last IST day on which it works.")
    @click.option(
        "--allow",
        type=Words(),
        multiple=True,
        help="`tradingview`, an address or a CIDR; without it any address.",
    )
    def create(
        name: str,
        scopes: tuple[str, ...],
        max_lots: int | None,
        symbols: tuple[str, ...] | None,
        expires: datetime | None,
        allow: tuple[tuple[str, ...], ...],
    ) -> None:
        """A new client. Its token is shown once, here, and stored as a hash."""
        words = tuple(word.lower() for given in allow for word in given)
        try:
            networks_of(words)
            limits = ClientLimits(max_lots, symbols_of(symbols or ()))
            kinds = frozenset(ClientScope(s) for s in scopes)
            client = Client(name, kinds, limits, words, _end_of(expires, ports.clock.now()), by())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        token = new_token()
        _register(ports).create(client, digest_of(token))
        _show(f"client {name}, {EFFECTIVE}: {_may(client)}", token)

    @clients.command("rotate", cls=Command)
    @click.argument("name")
    @click.option(
        "--grace",
        type=Span(),
        default="1h",
        show_default=True,
        help="How long the old token goes on; 0: ends now.",
    )
    def rotate(name: str, grace: timedelta) -> None:
        """A new token for a client, shown once. The old one goes on for a while, an older one ends at once."""
        token = new_token()
        ends_at = _register(ports).rotate(name, digest_of(token), grace)
        old = f"the old one ends at {when(ends_at)} IST" if ends_at else "no other one is valid"
        _show(f"a new token for {name}, {EFFECTIVE}; {old}", token)


def _ending(clients: click.Group, ports: Ports) -> None:
    @clients.command("revoke", cls=Command)
    @click.argument("name")
    def revoke(name: str) -> None:
        """End all tokens of a client at once."""
        if _register(ports).revoke(name):
            click.echo(f"{name} is revoked, {EFFECTIVE}; its orders stand as they are")
        else:
            click.echo(f"{name} was revoked already")

    @clients.command("list", cls=Command)
    def listing() -> None:
        """All clients, revoked ones too. No token: nobody can show one again."""
        found = _register(ports).registered()
        if not found:
            click.echo("no clients beside `default` (WEBHOOK_SECRET_TOKEN) and `admin` (ADMIN_TOKEN)")
            return
        now = ports.clock.now()
        heads = ("CLIENT", "STATE", "MAY", "TOKENS", "CREATED (IST)", "BY")
        click.echo(table(heads, [_row(r, now) for r in found]))


def _register(ports: Ports) -> Clients:
    if ports.clients is None:
        raise click.ClickException("this service has no register of clients")
    return ports.clients


def _end_of(day: datetime | None, now: datetime) -> datetime | None:
    """The end of that IST day."""
    if day is None:
        return None
    end = day.replace(tzinfo=IST) + timedelta(days=1)
    if end <= now:
        raise ValueError(f"expected a day that is not over, was {day:%Y-%m-%d}")
    return end


def _show(what: str, token: str) -> None:
    click.echo(what)
    click.echo("its token, shown this once:")
    click.echo(token)


def _may(client: Client) -> str:
    limits = client.limits
    words = ["scopes " + ",".join(sorted(client.scopes))]
    words += [f"at most {limits.max_lots} lots an order"] if limits.max_lots else []
    words += ["only " + ",".join(sorted(limits.symbols))] if limits.symbols else []
    words += ["from " + ",".join(client.networks)] if client.networks else []
    words += [f"until {when(client.expires_at)} IST"] if client.expires_at else []
    return "; ".join(words)


def _row(registered: Registered, now: datetime) -> tuple[str, ...]:
    client = registered.client
    live = [c for c in registered.tokens if c.is_live(now)]
    state = "valid" if live else "expired"
    if registered.revoked_at is not None:
        state = f"revoked {when(registered.revoked_at)}"
    ends = [f"one until {when(c.ends_at)}" for c in live if c.ends_at is not None]
    tokens = f"{len(live)}{' (' + ', '.join(ends) + ')' if ends else ''}"
    return client.name, state, _may(client), tokens, when(registered.created_at), client.created_by
