"""The sealing of the audit, as a job: what changed since the last seal, and a copy of each seal where the database's
owner cannot rewrite it: in the log, and in a bucket when one is set.
"""

from __future__ import annotations

import logging

from app.errors import ServiceError, StoreUnavailable
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
    """Recompute all chains and seals, as `flask audit verify` does, and compare the last seal that has a copy with it."""
    if ports.audit is None:
        return "there is no audit"
    with ports.audit.reading() as reading:
        check = Check(reading)
        faults = list(check)
    if not faults:
        copies = "" if ports.seal_vault is None else _compared(ports, ports.audit, ports.seal_vault)
        return f"whole: {check.orders} orders, {check.events} events, {check.seals} seals{copies}"
    first = faults[0]
    said = f"{len(faults)} faults, the first: order {first.order_id}, seal {first.seal}: {first.what}"
    ports.notifier.notify("audit_broken", f"{said}; `flask audit verify` shows all", page=True)
    raise AuditBroken(said)


def _compared(ports: Ports, audit: AuditLog, vault: SealVault) -> str:
    try:
        return f", copied up to seal {_copied_upto(audit, vault)}"
    except StoreUnavailable as error:
        return f"; not compared with the copies: {error.detail}"
    except AuditBroken as error:
        ports.notifier.notify("audit_broken", error.detail, page=True)
        raise


def _copy(audit: AuditLog, vault: SealVault) -> int:
    """Oldest first, from the last that is there on: what failed last time is caught up with. Raises AuditBroken."""
    copied = 0
    try:
        for seal in audit.after(_copied_upto(audit, vault), COPIES_PER_RUN):
            copied += vault.put(seal)
    except StoreUnavailable as error:
        log.warning("audit seals were not copied: %s", error.detail)
    return copied


def _copied_upto(audit: AuditLog, vault: SealVault) -> int:
    """The last seal that has a copy; 0: none has one. Copies are made in order, so that all before it have theirs.

    Raises AuditBroken when its copy says something else than the database.
    """
    newest = next((seal.number for seal in audit.newest(1)), 0)
    if vault.hash_of(newest + 1) is not None and not audit.after(newest, 1):  # none has been made meanwhile
        raise AuditBroken(
            f"the bucket has a seal {newest + 1}, which the database has not: its last ones are gone, or the bucket is "
            "another database's"
        )
    there, missing, step = newest, newest + 1, 1
    while there > 0 and vault.hash_of(there) is None:
        missing, there, step = there, there - step, step * 2
    there = max(there, 0)
    while missing - there > 1:
        half = (there + missing) // 2
        if vault.hash_of(half) is None:
            missing = half
        else:
            there = half
    for seal in audit.after(there - 1, 1) if there else ():
        if vault.hash_of(there) != seal.hash:
            raise AuditBroken(
                f"the bucket's copy of seal {there} has another hash: either was rewritten, or the bucket is another "
                "database's"
            )
    return there
