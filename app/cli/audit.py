"""`flask --app app.wsgi audit …`: whether the audit is whole, and the audit itself."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import date, datetime

import click
from flask import Flask

from app.cli.orders import DATE
from app.cli.words import Command, Group, several
from app.domain.alert import IST
from app.errors import FieldError, InvalidAlert
from app.service.audit_check import AuditLog, Check, Entry, Fault
from app.web.ports import Ports

COLUMNS = [field.name for field in fields(Entry)]


def register(app: Flask) -> None:
    app.cli.add_command(_audit(app.extensions["ports"]))


def _audit(ports: Ports) -> click.Group:
    @click.group("audit", cls=Group)
    def audit() -> None:
        """What was done with every order, and whether somebody changed it afterwards."""

    _verify(audit, ports)
    _export(audit, ports)
    return audit


def _verify(audit: click.Group, ports: Ports) -> None:
    @audit.command("verify", cls=Command)
    @click.option(
        "--seal",
        "noted",
        multiple=True,
        metavar="NUMBER:HASH",
        help="A seal as it was noted elsewhere (the service's log, a bucket): it must still be the same.",
    )
    @click.pass_context
    def verify(context: click.Context, noted: tuple[str, ...]) -> None:
        """Recompute all chains and seals. Exit code 1 and one line for each fault: which order, event and seal."""
        anchors = dict(_anchor(word) for word in noted)
        faults = 0
        with _log_of(ports).reading() as reading:
            check = Check(reading, anchors)
            for fault in check:
                faults += 1
                click.echo(f"FAULT {_where(fault)}: {fault.what}")
        whole = f"{several(check.orders, 'order')}, {several(check.events, 'event')}, {several(check.seals, 'seal')}"
        click.echo(f"{whole}; {several(check.unsealed, 'order')} changed since the last seal")
        if check.last is not None:
            click.echo(f"the last seal is {check.last.number}:{check.last.hash}")
        if faults:
            click.echo(f"NOT whole: {several(faults, 'fault')}")
            context.exit(1)
        click.echo("whole")


def _export(audit: click.Group, ports: Ports) -> None:
    @audit.command("export", cls=Command)
    @click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
    @click.option("--from", "first", type=DATE, help="The first IST date; without it from the beginning.")
    @click.option("--to", "last", type=DATE, help="The last IST date, included; without it up to now.")
    def export(kind: str, first: datetime | None, last: datetime | None) -> None:
        """All events to stdout, oldest first, each with its order, IST time and hash."""
        days = (_day(first), _day(last))
        if days[0] and days[1] and days[0] > days[1]:
            raise InvalidAlert((FieldError("--from", f"expected at most --to {days[1]}, was {days[0]}"),))
        with _log_of(ports).reading() as reading:
            write = _csv if kind == "csv" else _jsonl
            write(reading.entries(*days))


def _csv(entries: Iterator[Entry]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    for entry in entries:
        out.writerow([_cell(value) for value in _values(entry).values()])


def _cell(value: object) -> object:
    """A spreadsheet must not take a client's word for a formula."""
    text = value if isinstance(value, str) else ""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _jsonl(entries: Iterator[Entry]) -> None:
    for entry in entries:
        sys.stdout.write(json.dumps(_values(entry), ensure_ascii=False) + "\n")


def _values(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "at": None if entry.at is None else entry.at.astimezone(IST).isoformat()}


def _anchor(word: str) -> tuple[int, str]:
    found = re.fullmatch(r"([0-9]{1,9}):([0-9a-f]{64})", word, re.ASCII)
    if found is None:
        raise click.UsageError(f"--seal: expected NUMBER:HASH as `audit verify` prints it, was {word!r}")
    return int(found[1]), found[2]


def _where(fault: Fault) -> str:
    places = (("seal", fault.seal), ("order", fault.order_id), ("event", fault.sequence))
    return " ".join(f"{name} {place}" for name, place in places if place is not None)


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _log_of(ports: Ports) -> AuditLog:
    if ports.audit is None:
        raise click.ClickException("there is no audit here")
    return ports.audit
