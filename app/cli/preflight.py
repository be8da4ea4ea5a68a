"""`flask preflight`: ready or not ready, and why."""

from __future__ import annotations

import json

import click
from flask import Flask

from app.cli.words import Command, when
from app.preflight import preflight
from app.service.preflight import Finding, Light, Preflight

MARKS = {Light.OK: "ok", Light.NOTE: "note", Light.BAD: "NOT READY", Light.SKIPPED: "-"}
MARK_WIDTH, NAME_WIDTH = 9, 13


def register(app: Flask) -> None:
    """Add the command."""

    @app.cli.command("preflight", cls=Command)
    @click.option("--json", "as_json", is_flag=True, help="For a program.")
    def look(*, as_json: bool) -> None:
        """Could an order go out now? Looks at login, app, clock, contracts, database and the rest; sends nothing."""
        found = preflight(app.extensions["ports"])
        click.echo(as_text(found) if not as_json else json.dumps(as_fields(found), indent=1))
        if not found.is_ready:
            raise click.exceptions.Exit(1)


def as_text(found: Preflight) -> str:
    """One line for each look, what to do below it, and the verdict last, where a person looks."""
    what = "paper (no real money)" if found.mode == "paper" else "LIVE (real money)"
    lines = [f"Preflight of {when(found.at)} IST, mode {what}", ""]
    for finding in found.findings:
        lines.append(f"  {MARKS[finding.light]:<{MARK_WIDTH}}  {finding.name:<{NAME_WIDTH}}  {finding.said}")
        if finding.mend:
            lines.append(f"{'':<{MARK_WIDTH + NAME_WIDTH + 6}}-> {finding.mend}")
    return "\n".join([*lines, "", _verdict(found)])


def _verdict(found: Preflight) -> str:
    if found.is_ready:
        todo = ", ".join(f.name for f in found.findings if f.light is Light.NOTE and f.mend)
        if found.waits_for_session and todo:
            return f"READY for the next session (the exchange does not trade now), after what is noted at: {todo}."
        if found.waits_for_session:
            return "READY for the next session: the exchange does not trade now, and nothing else keeps an order back."
        return "READY: nothing here keeps an order back."
    names = ", ".join(f.name for f in found.bad)
    return f"NOT READY: no entry would go out now. To mend: {names}."


def as_fields(found: Preflight) -> dict[str, object]:
    return {
        "ready": found.is_ready,
        "mode": found.mode.value,
        "at": found.at.isoformat(),
        "findings": [_fields(f) for f in found.findings],
    }


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "light": finding.light.value,
        "said": finding.said,
        "mend": finding.mend,
    }
