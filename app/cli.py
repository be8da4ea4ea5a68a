"""`flask --app app.wsgi …`: what an operator does by hand."""

from __future__ import annotations

import click
from flask import Flask

from app import cli_audit, cli_clients, cli_config, cli_kill, cli_orders, cli_preflight, cli_slo, login_cli
from app.cli_words import Command
from app.settings import load


def register(app: Flask) -> None:
    """Add the operator's commands."""
    login_cli.register(app)
    cli_orders.register(app)
    cli_kill.register(app)
    cli_clients.register(app)
    cli_preflight.register(app)
    cli_audit.register(app)
    cli_slo.register(app)
    cli_config.register(app)

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
    @click.option(
        "--accept", is_flag=True, help="Take a file that is much smaller or larger than the last one."
    )
    def refresh_master(*, accept: bool) -> None:
        """Fetch the symbol master and rebuild the contract index; a file that fails leaves its last good copy in use."""
        from app.refresh import refresh

        done = refresh(app.extensions["ports"].settings, accept=accept)
        click.echo(str(done))
        if done.stale:
            raise click.exceptions.Exit(1)
