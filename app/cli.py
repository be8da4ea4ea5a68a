"""`flask --app app.wsgi …`: what an operator does by hand."""

from __future__ import annotations

import click
from flask import Flask

from app import cli_clients, cli_orders, login_cli
from app.cli_words import Command
from app.settings import load


def register(app: Flask) -> None:
    """Add the operator's commands."""
    login_cli.register(app)
    cli_orders.register(app)
    cli_clients.register(app)

    @app.cli.command("migrate", cls=Command)
    def migrate() -> None:
        """Upgrade the database schema to this version's."""
        from app.store.migrate import upgrade

        upgrade(load().url)
        click.echo("schema is at this version's head")

    @app.cli.command("reconcile", cls=Command)
    def reconcile() -> None:
        """Settle doubts and record what the broker's order book says: one pass, now."""
        from app.jobs import run_job

        ports = app.extensions["ports"]
        cli_orders.desk_of(ports)
        click.echo(run_job(ports, "reconcile"))

    @app.cli.command("refresh-master", cls=Command)
    def refresh_master() -> None:
        """Fetch the symbol master and rebuild the contract index."""
        from app.refresh import refresh

        click.echo(refresh(load()))
