"""`flask --app app.wsgi …`: what an operator does by hand."""

from __future__ import annotations

import click
from flask import Flask

from app.cli import audit, clients, config, kill, login, orders, preflight, slo
from app.cli.words import Command
from app.settings import load


def register(app: Flask) -> None:
    """Add the operator's commands."""
    login.register(app)
    orders.register(app)
    kill.register(app)
    clients.register(app)
    preflight.register(app)
    audit.register(app)
    slo.register(app)
    config.register(app)

    @app.cli.command("migrate", cls=Command)
    def migrate() -> None:
        """Upgrade the database schema to this version's."""
        from app.store.migrate import upgrade

        upgrade(load().url)
        click.echo("schema is at this version's head")

    @app.cli.command("reconcile", cls=Command)
    def reconcile() -> None:
        """Settle doubts and record what the broker's order book says: one pass, now."""
        from app.jobs.run import run_job

        ports = app.extensions["ports"]
        orders.desk_of(ports)
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
