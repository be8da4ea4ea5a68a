"""A process that changes state, tells of it and sends, until it is killed. Forks one for each line of its input."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from app.domain.deadline import Deadline
from app.domain.risk import TradingState
from app.errors import StoreUnavailable
from app.service.notices import Channel
from app.store.engine import Database
from app.store.sql import SqlStore
from app.store.sql_outbox import SqlOutbox
from app.telemetry.notify import OutboxNotifier
from app.telemetry.outbox_sender import Sender
from app.wiring import SystemClock
from tests.integration.store_rows import SCOPE

LEASE = timedelta(seconds=3)
"""Of the pass and of the claims. Longer than the sending process needs to end what it has begun."""
RENEW_S = 1.0


def work(url: str, sink: str, receipts: Path, number: int) -> None:
    clock, owner = SystemClock(), secrets.token_hex(4)
    store = SqlStore(Database(url, None), clock)
    outbox = SqlOutbox(store.database, SCOPE, LEASE)
    notifier = OutboxNotifier(outbox, clock)
    state = (TradingState.HALTED, TradingState.REDUCING)[number % 2]
    if number >= 0:
        with store.write() as tx:
            tx.set_trading_state(SCOPE, state, "test", f"state {number:02d}.")
            notifier.notify("wrong_verdict", f"joined {number:02d}.", page=True)
    print(f"committed {os.getpid()}", flush=True)  # noqa: T201 - to the test
    channels = [(Channel("sink", "1 json", ("all",), 600), sink)]
    sender = Sender(outbox, channels, receipts, clock, owner, pause=lambda _: time.sleep(RENEW_S))
    while True:
        with suppress(StoreUnavailable):  # a busy machine's, as a job's tick would
            if store.take_lock("sender", owner, LEASE, Deadline(clock.monotonic())):
                sender()
                with (
                    store.write() as tx
                ):  # as a job does: the next pass may be another's while this one's child sends
                    tx.free_lock("sender", owner)
        time.sleep(0.02)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            work(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(line))
        os.waitpid(child, 0)
