"""`flask --app app.wsgi …`: what an operator does by hand."""

from __future__ import annotations

import click
from flask import Flask

from app.settings import load


def register(app: Flask) -> None:
    """Add the operator's commands."""

    @app.cli.command("migrate")
    def migrate() -> None:
        """Upgrade the database schema to this version's."""
        from app.store.migrate import upgrade

        upgrade(load().url)
        click.echo("schema is at this version's head")

    @app.cli.command("follow")
    def follow() -> None:
        """Read the broker's order book once and record what became of our orders."""
        from app.service.follow import Follow
        from app.wiring import build

        ports = build(load())
        changed = Follow(ports.store, ports.broker, ports.clock, ports.scope)()
        for order in changed:
            click.echo(
                f"{order.id} {order.ticker} {order.status} {order.filled_quantity} at {order.fill_price}"
            )
        click.echo(f"{len(changed)} orders changed")

    @app.cli.command("refresh-master")
    def refresh_master() -> None:
        """Fetch the symbol master and rebuild the contract index."""
        from app.refresh import refresh

        click.echo(refresh(load()))
