"""The schema's newest revision, and whether a SQLite file has it: known without SQLAlchemy and Alembic, which take longer
to load than all else that a start does.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

HEAD = "0010"
"""The newest revision in migrations/versions; a test says so."""
PREFIX = "sqlite:///"


def is_at_head(url: str) -> bool:
    """False also where it cannot be told: a migration that has nothing to do changes nothing, and says what is wrong."""
    if not url.startswith(PREFIX) or "?" in url:
        return False
    path = unquote(url.removeprefix(PREFIX))  # as SQLAlchemy takes it
    try:
        if not Path(path).is_file():
            return False
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=1)) as file:
            return file.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    except (sqlite3.Error, OSError):
        return False
