"""The part of the wiring that tells a person things: notifier, outbox, heartbeats, runs of jobs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pydantic import SecretStr

from app.domain.order import Scope
from app.service.beside import Beside
from app.service.ports import Clock
from app.settings import Settings
from app.telemetry.notify import OutboxNotifier, hiding
from app.telemetry.outbox_sender import Sender

if TYPE_CHECKING:
    from app.store.engine import Database

RECEIPTS_FILE = "notices-sent"


def beside_of(
    settings: Settings, database: Database, clock: Clock, scope: Scope
) -> tuple[OutboxNotifier, Beside]:
    from app.store.sql_heartbeats import SqlHeartbeats
    from app.store.sql_job_runs import SqlJobRuns
    from app.store.sql_outbox import SqlOutbox

    outbox = SqlOutbox(database, scope)
    receipts = settings.instance_dir / RECEIPTS_FILE
    sender = Sender(outbox, settings.channels, receipts, clock, secrets.token_hex(8))
    notifier = OutboxNotifier(outbox, clock, hiding(_secrets_of(settings)))
    runs = SqlJobRuns(database, scope)
    return notifier, Beside(SqlHeartbeats(database, scope), runs, sender, outbox.purge)


def _secrets_of(settings: Settings) -> list[str]:
    """Whatever the settings call a secret, each word of a list by itself too."""
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            plain = value.get_secret_value()
            found += [plain.strip(), *(word.strip() for word in plain.split(","))]
    return found
