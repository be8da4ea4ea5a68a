"""The look before the market opens as a job: once on each trading day, by one instance, and a page when not ready."""

from __future__ import annotations

from datetime import datetime, time, timedelta

from app.domain.alert import IST
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.session import is_trading_day
from app.preflight import OPENS, WRITE_WITHIN_S, preflight
from app.web.ports import Ports

RUN_FROM = time(8, 50)
"""IST: the login and the master had their time, and a person still has some before 09:15."""
WORDS = f"{RUN_FROM:%H:%M} IST on trading days"
ONCE_FOR = timedelta(hours=1)
"""Longer than from RUN_FROM to the opening."""


def due(ports: Ports, last: datetime | None) -> bool:
    """Once, shortly before the market opens."""
    local = ports.clock.now().astimezone(IST)
    ran = last is not None and ist_date(last) == local.date()
    return not ran and is_trading_day(local.date()) and RUN_FROM <= local.time() < OPENS


def run(ports: Ports, lease: tuple[str, str] | None) -> str:
    """Look whether orders could go out now, and tell a person when not."""
    if lease is not None and not _is_first_today(ports, *lease):
        return "another instance has looked today"
    found = preflight(ports)
    if found.is_ready:
        return "ready"
    reasons = "; ".join(f"{f.name}: {f.said}" for f in found.bad)
    ports.notifier.notify("preflight_not_ready", f"no order would go out now. {reasons}", page=True)
    return f"not ready: {reasons}"


def _is_first_today(ports: Ports, name: str, owner: str) -> bool:
    """The job's lease ends in minutes, and the next instance would page a second time. Raises StoreUnavailable."""
    deadline = Deadline(ports.clock.monotonic() + WRITE_WITHIN_S)
    day = ist_date(ports.clock.now()).isoformat()
    return ports.store.take_lock(f"{name}:{day}", owner, ONCE_FOR, deadline)
