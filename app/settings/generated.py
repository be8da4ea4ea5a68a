"""The secrets that the first start makes where none are given, and where they are kept."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from app.settings import Settings

WEBHOOK_TOKEN_FILE = "webhook_token"  # noqa: S105 - a file's name
ADMIN_TOKEN_FILE = "admin_token"  # noqa: S105 - a file's name
SESSION_SECRET_FILE = "session_secret"  # noqa: S105 - a file's name
GENERATED = (
    ("webhook_secret_token", WEBHOOK_TOKEN_FILE),
    ("admin_token", ADMIN_TOKEN_FILE),
    ("session_secret", SESSION_SECRET_FILE),
)
"""The secrets that the first start makes on SQLite, and their files."""


def plain(value: SecretStr | str) -> str:
    """A setting's own text, whether it is a secret or not."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def with_generated_secrets(settings: Settings) -> Settings:
    """Where a token is not given and the database is a local file: the one that the first start wrote."""
    found: dict[str, SecretStr] = {}
    for name, file in GENERATED:
        if not plain(getattr(settings, name)) and (kept := _kept(settings.instance_dir / file)):
            found[name] = SecretStr(kept)
    return settings.model_copy(update=found)


def alike(settings: Settings) -> list[str]:
    """Secrets that are one and the same, in words: with the admin's as the webhook's every alert would be refused."""
    given = [(name.upper(), plain(getattr(settings, name))) for name, _ in GENERATED]
    return [
        f"{one} and {other}: expected two secrets, was one"
        for (one, a), (other, b) in combinations(given, 2)
        if a and a == b
    ]


def generate_secrets(settings: Settings) -> None:
    """First start: random secrets in INSTANCE_DIR, readable by this user alone. Of two starts at once the first makes
    them, and both read the same. A file is whole or not there; an empty one, of a start that was killed, is none.
    """
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(settings.instance_dir):
        for name, file in GENERATED:
            path = settings.instance_dir / file
            if not plain(getattr(settings, name)) and not _kept(path):
                _write(path, secrets.token_urlsafe(32) + "\n")


def _kept(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _write(path: Path, text: str) -> None:
    """All of it or nothing, also when this process is killed."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process at a time; the lock ends with it."""
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
