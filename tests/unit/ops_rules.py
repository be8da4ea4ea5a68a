"""What the alarms and dashboards say, and what the service exports: read for the tests beside this file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from app.domain.alert import Product
from app.service.figures import CapUse, Figures, HostFigures, JobFigure, Leg, OrderCount, Slip
from app.telemetry.cluster import ClusterFigures
from app.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS, GRAFANA = ROOT / "ops" / "prometheus", ROOT / "ops" / "grafana"
RUNBOOKS = ROOT / "docs" / "runbooks"
OF_PROMETHEUS = frozenset({"up"})
LABELS_OF_PROMETHEUS = frozenset({"instance", "job"})
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
_GROUPING = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "on", "without", "ignoring"})


def promtool() -> str:
    """Where it is missing the test is skipped with that reason; in CI, which installs it, it fails."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: .ci/run installs Debian's package prometheus")
        pytest.skip("promtool is missing: apt-get install prometheus")
    return found


def run_promtool(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool(), *words], cwd=cwd, capture_output=True, text=True, check=False)


def rules() -> list[dict[str, Any]]:
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def alarms() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> frozenset[str]:
    return frozenset(rule["record"] for rule in rules() if "record" in rule)


def promtool_tests() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "tests.yml").read_text(encoding="utf-8"))[
        "tests"
    ]
    return tests


def dashboards() -> dict[str, list[str]]:
    """By file: its expressions."""
    found = {}
    for path in sorted(GRAFANA.glob("*.json")):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        found[path.name] = [target["expr"] for panel in panels for target in panel["targets"]]
    return found


def panels() -> list[dict[str, Any]]:
    """Of all dashboards."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(GRAFANA.glob("*.json")))
    return [panel for text in texts for panel in json.loads(text)["panels"]]


def exported() -> frozenset[str]:
    """Every name that /metrics can show."""
    return frozenset(name for names in families().values() for name in names)


def families() -> dict[str, frozenset[str]]:
    """By metric the names of its series: the counts of a process, and the figures of cluster and host."""
    metrics = [*Metrics().registry.collect(), *_figures().collect()]
    return {metric.name: _names(metric) for metric in metrics}


def labels_of() -> dict[str, frozenset[str]]:
    """By name of a series, recorded ones too: the labels that it has here."""
    found: dict[str, frozenset[str]] = {}
    for kind in Metrics().registry._collector_to_names:
        if isinstance(kind, MetricWrapperBase):
            for suffix in SUFFIXES[kind._type or ""]:
                le = {"le"} if suffix == "_bucket" else set[str]()
                found[kind._name + suffix] = frozenset(kind._labelnames) | le
    for metric in _figures().collect():
        for sample in metric.samples:
            found[sample.name] = frozenset(sample.labels)
    for rule in rules():  # each reads only what stands above it
        if "record" in rule:
            found[rule["record"]] = frozenset[str]().union(*(found[name] for name in names_in(rule["expr"])))
    return found


def _figures() -> ClusterFigures:
    figures = Figures(
        orders=(OrderCount("FILLED", "INTRADAY", "orb", 1),),
        last_pass_s=1.0,
        caps=(CapUse("orders_day", 1, 2),),
        slips=tuple(Slip(Product.INTRADAY.value, "ENTRY", Decimal(1), leg) for leg in Leg),
        jobs=(JobFigure("seal", failed=False, success_age_s=1.0),),
    )
    host = HostFigures(
        master_age_s=1.0, master_stale=False, token_left_s=1.0, trading_day=True, budget_left={"day": 1}
    )
    return ClusterFigures(lambda: figures, lambda: host, lambda: 0.0)


def _names(metric: Metric) -> frozenset[str]:
    """As they are shown: a histogram without a sum has no `_sum`. Of one with labels nothing is shown before its first."""
    shown = {sample.name for sample in metric.samples if not sample.name.endswith("_created")}
    return frozenset(shown or (metric.name + suffix for suffix in SUFFIXES[metric.type]))


def labels_in(expression: str) -> frozenset[str]:
    """The labels that an expression groups, joins or chooses by."""
    groups = " ".join(re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression))
    return frozenset(re.findall(r"\w+", groups)) | frozenset(
        re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression)
    )


def names_in(expression: str) -> frozenset[str]:
    """The series that an expression reads."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(_GROUPING, " ", text)
    text = re.sub(r"\boffset\s+\w+", " ", text)
    words = re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])", text)
    return frozenset(words) - _WORDS
