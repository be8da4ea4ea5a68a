"""The secrets that the first start makes where none are given, and where they are kept."""

from __future__ import annotations

import secrets
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
        path = settings.instance_dir / file
        if not plain(getattr(settings, name)) and path.is_file():
            found[name] = SecretStr(path.read_text(encoding="utf-8").strip())
    return settings.model_copy(update=found)


def generate_secrets(settings: Settings) -> None:
    """First start: random secrets in INSTANCE_DIR, readable by this user alone."""
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, file in GENERATED:
        path = settings.instance_dir / file
        if plain(getattr(settings, name)) or path.exists():
            continue
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
