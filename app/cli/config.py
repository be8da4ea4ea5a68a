"""`flask --app app.wsgi config|flags|experiments …`: what may be changed while the service runs, and what was tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import click
from flask import Flask

from app.cli.orders import REASON, by
from app.cli.words import Command, Group, several, table, when
from app.domain.experiment import FLAGS, Experiment, Flag, Variant
from app.domain.order import OrderKind
from app.errors import NotFound
from app.service.config import Config, Done, Version
from app.service.config_document import stopped, with_experiment, with_flag, with_settings
from app.service.experiments import METHOD, Estimate, VariantReport, report
from app.web.ports import Ports

EFFECTIVE = "in force on every instance within a second"
VARIANT = re.compile(r"([^:]+)(?::([0-9]{1,6}))?(?::(.*))?", re.ASCII)

WORDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "sl": ("sl_percent", Decimal),
    "tp": ("tp_percent", Decimal),
    "kind": ("kind", lambda text: OrderKind(text.upper())),
}


def register(app: Flask) -> None:
    ports: Ports = app.extensions["ports"]
    for group in (_config(ports), _flags(ports), _experiments(ports)):
        app.cli.add_command(group)


def _of(ports: Ports) -> Config:
    if ports.config is None:
        raise click.ClickException("this service has no runtime configuration")
    return ports.config


def _config(ports: Ports) -> click.Group:
    @click.group("config", cls=Group)
    def config() -> None:
        """Limits, percents and windows over the environment's."""

    _looking(config, ports)
    _changing(config, ports)
    return config


def _looking(config: click.Group, ports: Ports) -> None:
    @config.command("get", cls=Command)
    @click.argument("name", required=False)
    def get(name: str | None) -> None:
        """What is in force, and what of it is set here. With a NAME its value alone."""
        now = _of(ports)()
        values = now.effective.values
        if name is not None:
            if name.upper() not in values:
                raise NotFound(f"{name} cannot be changed while running: `config get` lists what can")
            click.echo(values[name.upper()])
            return
        base = _of(ports).rules.effective({}).values
        rows = [(n, v, base[n] if n in now.document.settings else "") for n, v in values.items()]
        click.echo(f"version {now.version.number}: {_who(now.version)}")
        click.echo(table(("SETTING", "IN FORCE", "ENVIRONMENT, WHERE IT DIFFERS"), rows))

    @config.command("history", cls=Command)
    @click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
    def history(limit: int) -> None:
        """Who changed what, when and why, newest first."""
        found = _of(ports).history(limit)
        if not found:
            click.echo("no change yet: all is as the environment says")
        for version in found:
            click.echo(f"version {version.number}  {_who(version)}")
            for change in version.changes:
                click.echo(f"    {change.name}: {change.old or 'none'} -> {change.new or 'none'}")


def _changing(config: click.Group, ports: Ports) -> None:
    @config.command("set", cls=Command)
    @click.argument("name")
    @click.argument("value", required=False)
    @click.option("--environment", is_flag=True, help="Give it back to the environment's value.")
    @REASON
    def set_(name: str, value: str | None, *, environment: bool, reason: str) -> None:
        """Set NAME to VALUE, written as in the environment; an empty VALUE turns a risk limit off."""
        if (value is None) is not environment:
            raise click.UsageError("expected a VALUE or --environment")
        _say(_of(ports).change(by(), reason, with_settings({name.upper(): value})))

    @config.command("rollback", cls=Command)
    @click.argument("version", type=click.IntRange(0))
    @REASON
    def rollback(version: int, reason: str) -> None:
        """All as it was at VERSION (0: as the environment says), as a new version. Flags and experiments too."""
        _say(_of(ports).rollback(by(), reason, version))


def _flags(ports: Ports) -> click.Group:
    @click.group("flags", cls=Group)
    def flags() -> None:
        """What is on for a part of the strategies."""

    @flags.command("list", cls=Command)
    def listing() -> None:
        """All flags, and for whom they are on."""
        set_here = _of(ports)().document.flags
        rows = []
        for name, what in FLAGS.items():
            flag = set_here.get(name, Flag())
            sides = {
                on: ",".join(sorted(s for s, x in flag.strategies.items() if x is on)) for on in (True, False)
            }
            rows.append((name, f"{flag.percent} %", sides[True], sides[False], what))
        click.echo(table(("FLAG", "STRATEGIES", "ALWAYS ON", "ALWAYS OFF", "WHAT"), rows))

    @flags.command("set", cls=Command)
    @click.argument("name")
    @click.argument("percent", type=click.IntRange(0, 100))
    @click.option("--on", "on", multiple=True, help="A strategy for which it is on anyway.")
    @click.option("--off", "off", multiple=True, help="A strategy for which it is off anyway.")
    @REASON
    def set_(name: str, percent: int, on: tuple[str, ...], off: tuple[str, ...], reason: str) -> None:
        """On for PERCENT of the strategies, by a hash that does not change. Named ones are named anew each time."""
        if both := sorted(set(on) & set(off)):
            raise click.UsageError(f"expected on or off, was both for {', '.join(both)}")
        flag = Flag(percent, dict.fromkeys(on, True) | dict.fromkeys(off, False))
        _say(_of(ports).change(by(), reason, with_flag(name, flag)))

    return flags


def _experiments(ports: Ports) -> click.Group:
    @click.group("experiments", cls=Group)
    def experiments() -> None:
        """Protection percents and order kinds compared on entries."""

    @experiments.command("start", cls=Command)
    @click.argument("name")
    @click.option(
        "--variant",
        "variants",
        multiple=True,
        required=True,
        help="NAME[:WEIGHT[:sl=P,tp=P,kind=MARKET|LIMIT]], at least two; what is not said is the setting's.",
    )
    @click.option("--strategy", "strategies", multiple=True, help="Only this one; without it all.")
    @REASON
    def start(name: str, variants: tuple[str, ...], strategies: tuple[str, ...], reason: str) -> None:
        """A new experiment, or one that was stopped goes on (with the variants it had)."""
        try:
            only = frozenset(strategies) if strategies else None
            experiment = Experiment(name, tuple(_variant(text) for text in variants), only)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        _say(_of(ports).change(by(), reason, with_experiment(experiment)))

    @experiments.command("stop", cls=Command)
    @click.argument("name")
    @REASON
    def stop(name: str, reason: str) -> None:
        """No further order comes into it; what it has decided stays."""
        _say(_of(ports).change(by(), reason, stopped(name)))

    _experiments_shown(experiments, ports)

    return experiments


def _experiments_shown(experiments: click.Group, ports: Ports) -> None:
    @experiments.command("list", cls=Command)
    def listing() -> None:
        """All experiments."""
        found = sorted(_of(ports)().document.experiments.values(), key=lambda e: e.name)
        if not found:
            click.echo("no experiments")
            return
        rows = [
            (
                e.name,
                "running" if e.running else "stopped",
                "all" if e.strategies is None else ",".join(sorted(e.strategies)),
                "; ".join(_variant_words(v) for v in e.variants),
            )
            for e in found
        ]
        click.echo(table(("EXPERIMENT", "STATE", "STRATEGIES", "VARIANTS"), rows))

    @experiments.command("report", cls=Command)
    @click.argument("name")
    def compared(name: str) -> None:
        """The variants compared: slippage, hit rate, profit."""
        experiment = _of(ports)().document.experiments.get(name)
        if experiment is None or ports.trials is None:
            raise NotFound(f"there is no experiment {name}")
        found = report(experiment, ports.trials.trials(ports.scope, experiment))
        heads = (
            "VARIANT",
            "WEIGHT",
            "ORDERS",
            "FILLED",
            "SLIPPAGE",
            "TRIPS",
            "UNPRICED",
            "OPEN",
            "HIT RATE",
            "P&L",
            "TOTAL",
        )
        click.echo(table(heads, [_report_row(v) for v in found]))
        click.echo(METHOD)


def _variant(text: str) -> Variant:
    """`wide:50:sl=10,tp=20,kind=LIMIT`. Raises ValueError."""
    found = VARIANT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected NAME:WEIGHT:sl=P,tp=P,kind=K, was {text!r}")
    given: dict[str, Any] = {}
    for word in filter(None, (found[3] or "").split(",")):
        name, _, value = word.partition("=")
        try:
            field, convert = WORDS[name]
            given[field] = convert(value)
        except (KeyError, ValueError, InvalidOperation):
            raise ValueError(f"expected sl=P, tp=P or kind=MARKET|LIMIT, was {word!r}") from None
    return Variant(found[1], int(found[2] or 1), **given)


def _variant_words(v: Variant) -> str:
    words = [f"{v.name}:{v.weight}"]
    words += [f"sl {v.sl_percent:f} %"] if v.sl_percent is not None else []
    words += [f"tp {v.tp_percent:f} %"] if v.tp_percent is not None else []
    words += [v.kind.value] if v.kind is not OrderKind.MARKET else []
    return " ".join(words)


def _report_row(v: VariantReport) -> tuple[str, ...]:
    counts = (str(v.weight), str(v.orders), str(v.filled))
    trips = (str(v.hit_rate.count), str(v.unpriced), str(v.still_open))
    hits = _estimate(v.hit_rate, 100, " %")
    return v.name, *counts, _estimate(v.slippage), *trips, hits, _estimate(v.profit), f"{v.profit_total:.2f}"


def _estimate(e: Estimate, times: int = 1, unit: str = "") -> str:
    if e.value is None:
        return "-"
    value = f"{e.value * times:.2f}{unit}"
    if e.low is None or e.high is None:
        return value
    return f"{value} ({e.low * times:.2f} to {e.high * times:.2f})"


def _who(version: Version) -> str:
    if not version.number:
        return version.reason
    return f"{when(version.at)} IST  {version.by}  {version.reason}"


def _say(done: Done) -> None:
    number = done.version.number
    if not done.changed:
        click.echo(f"all is so already, by version {number}")
        return
    click.echo(f"version {number}, {several(len(done.version.changes), 'change')}, {EFFECTIVE}")
    for change in done.version.changes:
        click.echo(f"    {change.name}: {change.old or 'none'} -> {change.new or 'none'}")
