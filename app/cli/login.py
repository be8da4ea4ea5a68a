"""`flask login` and `flask tokens …`: the daily login and the token store from a terminal."""

from __future__ import annotations

from datetime import timedelta

import click
from flask import Flask
from flask.cli import AppGroup

from app.domain.alert import IST
from app.errors import ServiceError
from app.service.login import Login
from app.web.ports import Ports


def register(app: Flask) -> None:
    """Add the commands."""
    ports: Ports = app.extensions["ports"]
    tokens = AppGroup("tokens", help="The stored Fyers token.")
    app.cli.add_command(tokens)

    @app.cli.command("login")
    def login() -> None:
        """Log in at Fyers: open the printed address, then paste the code or the address the browser ended at."""
        verb = _login_of(ports)
        code = ports.settings.fyers_auth_code.get_secret_value()
        if not code:
            click.echo(f"Open this address and log in:\n\n  {verb.auth_url('terminal')}\n")
            code = click.prompt("The code, or the whole address that the browser ended at", hide_input=True)
        try:
            record = verb.complete(code)
        except ServiceError as error:
            raise click.ClickException(f"{error.detail} ({error.code})") from None
        click.echo(f"logged in; the token is valid until {record.ends_at.astimezone(IST):%d %b %Y %H:%M} IST")

    @tokens.command("show")
    def show() -> None:
        """Age and end of the stored token; never the token."""
        try:
            status = _login_of(ports).status()
        except ServiceError as error:
            raise click.ClickException(f"{error.detail} ({error.code})") from None
        if status is None:
            raise click.ClickException("no token is stored: flask --app app.wsgi login")
        age = timedelta(seconds=int((ports.clock.now() - status.obtained_at).total_seconds()))
        word = "valid until" if status.is_valid else "ended at"
        click.echo(f"obtained {age} ago; {word} {status.ends_at.astimezone(IST):%d %b %Y %H:%M} IST")

    @tokens.command("rotate")
    def rotate() -> None:
        """Re-encrypt the stored token with the first of TOKEN_ENCRYPTION_KEYS."""
        try:
            done = _login_of(ports).rotate()
        except ServiceError as error:
            raise click.ClickException(f"{error.detail} ({error.code})") from None
        click.echo(
            "re-encrypted with the first key" if done else "nothing to do: no token, or the first key's"
        )


def _login_of(ports: Ports) -> Login:
    if ports.login is None:
        raise click.ClickException(
            "expected FYERS_APP_ID, FYERS_SECRET_ID and TOKEN_ENCRYPTION_KEYS, one is missing"
        )
    return ports.login
