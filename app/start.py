"""What has to stand before the first request: secrets, schema, contract index. Runs once, in gunicorn's parent."""

from __future__ import annotations

import subprocess
import sys

from app.settings import Settings
from app.settings.generated import ADMIN_TOKEN_FILE, WEBHOOK_TOKEN_FILE, generate_secrets
from app.store.head import is_at_head


def prepare(settings: Settings) -> None:
    """Each step in a process of its own: what only starting needs stays out of the serving processes' memory."""
    generate_secrets(settings)
    if settings.is_sqlite and not is_at_head(settings.url):
        # Postgres is migrated by `flask --app app.wsgi migrate`, when the operator says so.
        subprocess.run([sys.executable, "-m", "app.store.migrate", settings.url], check=True)  # noqa: S603
    refreshed = subprocess.run([sys.executable, "-m", "app.refresh", "--start"], check=False)
    if refreshed.returncode:
        print("no fresh contract index: see the lines above; no entries until there is one", file=sys.stderr)  # noqa: T201


def announce(settings: Settings) -> None:
    """Print the address and a command that can be pasted. It reads the token from its file."""
    where = f"http://127.0.0.1:{settings.port}"
    token = settings.instance_dir / WEBHOOK_TOKEN_FILE
    admin = settings.instance_dir / ADMIN_TOKEN_FILE
    strike = "24500"
    body = (
        '{\\"token\\":\\"$(cat '
        + str(token)
        + ')\\",\\"symbol\\":\\"NIFTY\\",\\"strikeprice\\":'
        + strike
        + ","
        '\\"optionType\\":\\"CE\\",\\"expiry\\":\\"WEEKLY\\",\\"action\\":\\"BUY\\",\\"lots\\":1}'
    )
    print(  # noqa: T201 - for the person who started it
        f"\nServing {settings.trading_mode.value} mode on {where}\n"
        f'Admin token: {admin}\nTry it:\n\n  curl -s {where}/webhook -d "{body}"\n',
        flush=True,
    )
