"""The sealing of the audit, as a job: what changed since the last seal, and a copy of each seal where the database's
owner cannot rewrite it: in the log, and in a bucket when one is set.
"""

from __future__ import annotations

import logging

from app.errors import ServiceError
from app.service.audit_check import SEAL_ORDERS_AT_ONCE, AuditLog, Check, SealVault
from app.web.ports import Ports

log = logging.getLogger(__name__)

MAX_SEALS_PER_RUN = 200
"""With 500 orders each: years of orders in the first run after an upgrade, and an end all the same."""
COPIES_PER_RUN = 100


def run(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Seal the orders' audit chains, so that what is deleted or cut afterwards shows."""
    if ports.audit is None:
        return "there is no audit"
    made = 0
    while made < MAX_SEALS_PER_RUN and (seal := ports.audit.seal()) is not None:
        made += 1
        log.info("audit seal %d up to event %d: %s", seal.number, seal.upto, seal.hash)
    said = f"{made} seals of at most {SEAL_ORDERS_AT_ONCE} orders" if made else "nothing changed"
    copied = 0 if ports.seal_vault is None else _copy(ports.audit, ports.seal_vault)
    return f"{said}, {copied} copied" if copied else said


class AuditBroken(ServiceError):
    """Something in the audit is not as it was written."""

    code = "audit_broken"


def verify(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Recompute all chains and seals, as `flask audit verify` does; the seals' copies are the operator's to compare."""
    if ports.audit is None:
        return "there is no audit"
    with ports.audit.reading() as reading:
        check = Check(reading)
        faults = list(check)
    if not faults:
        return f"whole: {check.orders} orders, {check.events} events, {check.seals} seals"
    first = faults[0]
    said = f"{len(faults)} faults, the first: order {first.order_id}, seal {first.seal}: {first.what}"
    ports.notifier.notify("audit_broken", f"{said}; `flask audit verify` shows all", page=True)
    raise AuditBroken(said)


def _copy(audit: AuditLog, vault: SealVault) -> int:
    """Newest first, back to one that is there already: what failed last time is caught up with."""
    copied = 0
    for seal in audit.newest(COPIES_PER_RUN):
        try:
            if not vault.put(seal):
                break
        except ServiceError as error:
            log.warning("audit seal %d was not copied: %s", seal.number, error.detail)
            break
        copied += 1
    return copied
