"""What the alarms and dashboards say, and what the service exports: read for the tests beside this file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics_core import Metric

from app.domain.alert import Product
from app.service.figures import CapUse, Figures, HostFigures, JobFigure, OrderCount, Slip
from app.telemetry.cluster import ClusterFigures
from app.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS, GRAFANA = ROOT / "ops" / "prometheus", ROOT / "ops" / "grafana"
RUNBOOKS = ROOT / "docs" / "runbooks"
OF_PROMETHEUS = frozenset({"up"})
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


def exported() -> frozenset[str]:
    """Every name that /metrics can show: the counts of a process, and the figures of cluster and host."""
    figures = Figures(
        orders=(OrderCount("FILLED", "INTRADAY", "orb", 1),),
        last_pass_s=1.0,
        caps=(CapUse("orders_day", 1, 2),),
        slips=(Slip(Product.INTRADAY.value, "ENTRY", 1),),  # type: ignore[arg-type]
        jobs=(JobFigure("seal", failed=False, success_age_s=1.0),),
    )
    host = HostFigures(
        master_age_s=1.0, master_stale=False, token_left_s=1.0, trading_day=True, budget_left={"day": 1}
    )
    cluster = ClusterFigures(lambda: figures, lambda: host, lambda: 0.0)
    return frozenset(_names([*Metrics().registry.collect(), *cluster.collect()]))


def _names(metrics: Iterable[Metric]) -> Iterator[str]:
    for metric in metrics:
        yield from (metric.name + suffix for suffix in SUFFIXES[metric.type])


def names_in(expression: str) -> frozenset[str]:
    """The series that an expression reads."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(_GROUPING, " ", text)
    text = re.sub(r"\boffset\s+\w+", " ", text)
    words = re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])", text)
    return frozenset(words) - _WORDS
