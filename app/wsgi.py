"""What gunicorn and the `flask` command load."""

from __future__ import annotations

from app import create_app
from app.cli import register

app = create_app()
register(app)
