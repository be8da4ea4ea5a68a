"""The part of the wiring that tells a person things: notifier, outbox, heartbeats, runs of jobs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from app.domain.order import Scope
from app.service.beside import Beside
from app.service.ports import Clock
from app.settings import Settings
from app.telemetry.notify import OutboxNotifier
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
    notifier = OutboxNotifier(outbox, clock)
    runs = SqlJobRuns(database, scope)
    return notifier, Beside(SqlHeartbeats(database, scope), runs, sender, outbox.purge, notifier.flush)
