"""The document of the runtime configuration: settings, flags and experiments, and the edits that make the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from app.domain.experiment import ENTRIES, FLAGS, Experiment, Flag, Rollout, Variant
from app.domain.order import OrderKind
from app.errors import NotFound

T = TypeVar("T")
Raw = Mapping[str, Any]
"""A document as JSON: settings (name to text), flags and experiments by their names."""
CLOSED = Flag(0)
UNREADABLE = (KeyError, TypeError, AttributeError, ValueError, InvalidOperation)
"""What reading JSON of another shape than expected ends with."""


@dataclass(frozen=True, slots=True)
class Document:
    settings: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Flag] = field(default_factory=dict)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)

    def rollout(self) -> Rollout:
        running = tuple(e for _, e in sorted(self.experiments.items()) if e.running)
        return Rollout(self.flags.get(ENTRIES, Flag()), running)


def with_settings(values: Mapping[str, str | None]) -> Callable[[Document], Document]:
    """An edit: these settings set, or (None) given back to the environment."""

    def edit(document: Document) -> Document:
        merged = {**document.settings, **values}
        return replace(document, settings={n: v for n, v in merged.items() if v is not None})

    return edit


def with_flag(name: str, flag: Flag) -> Callable[[Document], Document]:
    return lambda document: replace(document, flags={**document.flags, name: flag})


def with_experiment(experiment: Experiment) -> Callable[[Document], Document]:
    """An edit: an experiment begins, goes on, or changes its strategies. Its variants stay what they were in any
    version: `Config` sees to that.
    """
    return lambda document: replace(
        document, experiments={**document.experiments, experiment.name: experiment}
    )


def stopped(name: str) -> Callable[[Document], Document]:
    """An edit: no further order comes into it. Raises NotFound."""

    def edit(document: Document) -> Document:
        known = document.experiments.get(name)
        if known is None:
            raise NotFound(f"there is no experiment {name}")
        return replace(document, experiments={**document.experiments, name: replace(known, running=False)})

    return edit


def raw_of(document: Document) -> Raw:
    raw = {
        "settings": dict(sorted(document.settings.items())),
        "flags": {
            name: {"percent": f.percent, "strategies": dict(sorted(f.strategies.items()))}
            for name, f in sorted(document.flags.items())
        },
        "experiments": {name: experiment_raw(e) for name, e in sorted(document.experiments.items())},
    }
    return {name: part for name, part in raw.items() if part}


def experiment_raw(experiment: Experiment) -> dict[str, Any]:
    return {
        "variants": [
            {
                "name": v.name,
                "weight": v.weight,
                "sl_percent": None if v.sl_percent is None else f"{v.sl_percent:f}",
                "tp_percent": None if v.tp_percent is None else f"{v.tp_percent:f}",
                "kind": v.kind.value,
            }
            for v in experiment.variants
        ],
        "strategies": None if experiment.strategies is None else sorted(experiment.strategies),
        "running": experiment.running,
    }


def document_of(raw: Raw) -> Document:
    """Raises ValueError for what this version of the service cannot read."""
    try:
        return Document(
            settings={str(n): str(v) for n, v in raw.get("settings", {}).items()},
            flags={n: flag_of(f) for n, f in raw.get("flags", {}).items()},
            experiments={n: experiment_of(n, e) for n, e in raw.get("experiments", {}).items()},
        )
    except UNREADABLE as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"unexpected shape: {error!r}") from None


def readable_of(raw: Raw) -> Document:
    """What this version of the service can read of another one's document. A flag that it cannot is closed: what
    somebody has switched off must not come on by it.
    """
    flags = _section(raw, "flags")
    return Document(
        settings=_each(_section(raw, "settings") or {}, lambda _, value: str(value)),
        flags=dict.fromkeys(FLAGS if flags is None else flags, CLOSED)
        | _each(flags or {}, lambda _, value: flag_of(value)),
        experiments=_each(_section(raw, "experiments") or {}, experiment_of),
    )


def _section(raw: Raw, name: str) -> Mapping[str, Any] | None:
    """Empty when the document has none, None when it has something else there."""
    found = raw.get(name, {}) if isinstance(raw, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _each(section: Mapping[str, Any], read: Callable[[str, Any], T]) -> dict[str, T]:
    """Those that can be read."""
    found = {}
    for name, value in section.items():
        with suppress(*UNREADABLE):
            found[name] = read(name, value)
    return found


def flag_of(raw: Raw) -> Flag:
    strategies = dict(raw["strategies"])
    more = sorted(set(raw) - {"percent", "strategies"})
    if more or not all(isinstance(is_on, bool) for is_on in strategies.values()):
        raise ValueError(f"expected percent and strategies, each on or off, was {raw!r}")
    return Flag(raw["percent"], strategies)


def experiment_of(name: str, raw: Raw) -> Experiment:
    strategies = raw["strategies"]
    return Experiment(
        name,
        tuple(
            Variant(
                v["name"],
                v["weight"],
                _percent(v["sl_percent"]),
                _percent(v["tp_percent"]),
                OrderKind(v["kind"]),
            )
            for v in raw["variants"]
        ),
        None if strategies is None else frozenset(strategies),
        bool(raw["running"]),
    )


def variants_in(raw: Raw, name: str) -> tuple[Variant, ...] | None:
    """Of the experiment of that name; empty when they cannot be read, None when there is no such experiment."""
    experiments = raw.get("experiments")
    if not isinstance(experiments, Mapping) or name not in experiments:
        return None
    try:
        return experiment_of(name, experiments[name]).variants
    except UNREADABLE:
        return ()


def _percent(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def flat(raw: Raw) -> dict[str, str]:
    """Everything by one name each, as texts that can be compared."""
    found = {str(n): str(v) for n, v in raw.get("settings", {}).items()}
    for section, word in (("flags", "flag"), ("experiments", "experiment")):
        parts = raw.get(section, {})
        found |= {f"{word} {n}": json.dumps(v, sort_keys=True) for n, v in parts.items()}
    return found
