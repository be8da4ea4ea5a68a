"""What gunicorn and the `flask` command load."""

from __future__ import annotations

from app import create_app
from app.cli import register
from app.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    raise SystemExit(f"Error: {error}") from None  # one line for the operator, and exit code 1
register(app)
