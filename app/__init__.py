"""TradingView alerts to Fyers option orders: every alert becomes exactly one order or a clear "no"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """Build the service from the environment. Imported inside, so that `app.domain` loads no Flask."""
    from app.factory import create_app as build

    return build()
