"""Alarms and dashboards: each expression reads what the service exports, each alarm has been seen to fire and not to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from app.jobs.run import JOBS
from tests.unit.operator_desk import Operator
from tests.unit.operator_desk import fresh as fresh  # noqa: PLC0414 - a fixture
from tests.unit.ops_rules import (
    LABELS_OF_PROMETHEUS,
    OF_PROMETHEUS,
    PROMETHEUS,
    ROOT,
    RUNBOOKS,
    alarms,
    dashboards,
    exported,
    families,
    labels_in,
    labels_of,
    names_in,
    panels,
    promtool_tests,
    recorded,
    rules,
    run_promtool,
)

COMMAND = re.compile(r"`flask --app app\.wsgi ([a-z-]+)(?: ([a-z-]+))?")


def test_the_reader_of_expressions_finds_the_names() -> None:
    expression = 'sum by (job) (rate(a_total{b="c_total"}[5m])) / on(d) e:f > 14.4 * max(g) and on() h offset 15m == bool 1'
    assert names_in(expression) == {"a_total", "e:f", "g", "h"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_only_what_is_exported(rule: dict[str, str]) -> None:
    names = names_in(rule["expr"])
    assert names or "hour()" in rule["expr"]
    assert names <= exported() | recorded() | OF_PROMETHEUS


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_reads_only_what_is_exported(name: str) -> None:
    expressions = dashboards()[name]
    assert expressions
    for expression in expressions:
        names = names_in(expression)
        assert names, expression
        assert names <= exported() | recorded(), expression


@pytest.mark.parametrize(
    "expression", [r["expr"] for r in rules()] + [e for d in dashboards().values() for e in d]
)
def test_an_expression_groups_and_chooses_by_labels_that_its_series_have(expression: str) -> None:
    known, names = labels_of(), names_in(expression)
    there = frozenset[str]().union(*(known.get(name, frozenset()) for name in names))
    assert labels_in(expression) <= there | LABELS_OF_PROMETHEUS


def test_every_figure_stands_on_a_dashboard() -> None:
    read = frozenset(name for d in dashboards().values() for e in d for name in names_in(e))
    assert [metric for metric, names in families().items() if not names & read] == []


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_is_so_and_which_is_which(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        groups = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", target["expr"]))))
        assert legend <= (groups or {"objective"})
        # Over a range Grafana shows the last value there was, also of what is over: a state, or a time without a database.
        assert panel["type"] != "stat" or target["instant"]


def test_the_trading_state_is_shown_by_its_name() -> None:
    """Of one series alone Grafana would show the value, and that is 1 whatever the state."""
    (panel,) = [p for p in panels() if "trading_state" in p["targets"][0]["expr"]]
    assert panel["options"]["textMode"] == "name"


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboards_expressions_parse(name: str, tmp_path: Path) -> None:
    made = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(dashboards()[name])]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": made}]}))
    checked = run_promtool("check", "rules", "panels.yml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(made)} rules found" in checked.stdout


@pytest.mark.parametrize("name", alarms())
def test_an_alarm_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    alarm = alarms()[name]
    assert alarm["labels"]["severity"] in {"page", "ticket"}
    assert alarm["annotations"]["summary"]
    runbook = ROOT / alarm["annotations"]["runbook_url"]
    assert runbook.parent == RUNBOOKS
    text = runbook.read_text(encoding="utf-8")
    heading = text.splitlines()[0]
    family, _, _ = name.partition("Burn")
    assert name in heading or (family in heading and name.removeprefix(f"{family}Burn") in heading)
    assert all(part in text for part in ("**Means.**", "**Look at.**", "**Do.**"))


@pytest.mark.parametrize("name", alarms())
def test_an_alarm_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    cases = [c for t in promtool_tests() for c in t["alert_rule_test"] if c["alertname"] == name]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


def test_promtool_accepts_the_rules_and_the_example() -> None:
    checked = run_promtool("check", "rules", "rules.yml", cwd=PROMETHEUS)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout
    config = run_promtool("check", "config", "--syntax-only", "prometheus.yml", cwd=PROMETHEUS)
    assert config.returncode == 0, config.stderr


def test_promtools_own_cases_pass() -> None:
    tested = run_promtool("test", "rules", "tests.yml", cwd=PROMETHEUS)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "SUCCESS" in tested.stdout + tested.stderr


def test_a_case_that_should_fire_fails_without_its_rule(tmp_path: Path) -> None:
    """So that the cases prove something."""
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    assert "max(oldest_doubt_seconds) > 30" in text
    (tmp_path / "rules.yml").write_text(
        text.replace("max(oldest_doubt_seconds) > 30", "max(oldest_doubt_seconds) > 3000")
    )
    cases = [
        t for t in promtool_tests() if any(c["alertname"] == "InDoubtOver30s" for c in t["alert_rule_test"])
    ]
    of_it = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases}
    (tmp_path / "tests.yml").write_text(json.dumps(of_it))  # which is YAML as well
    tested = run_promtool("test", "rules", "tests.yml", cwd=tmp_path)
    assert tested.returncode == 1
    assert "InDoubtOver30s" in tested.stdout + tested.stderr


def test_the_rules_name_jobs_that_exist() -> None:
    named = set()
    for rule in rules():
        for words in re.findall(r'job=~?"([a-z|-]+)"', rule["expr"]):
            named |= set(words.split("|"))
    assert "verify-audit" in named
    assert named - {"tradingview-fyers"} <= set(JOBS)


def test_the_runbooks_name_commands_that_exist(fresh: Operator) -> None:
    commands = _commands(fresh.app)
    found = 0
    for path in sorted(RUNBOOKS.glob("*.md")):
        for word, then in COMMAND.findall(path.read_text(encoding="utf-8")):
            found += 1
            assert word in commands, f"{path.name}: {word}"
            if then and commands[word]:
                assert then in commands[word], f"{path.name}: {word} {then}"
    assert found > 10


def test_the_documents_give_commands_all_that_they_need(fresh: Operator) -> None:
    """Somebody in a hurry copies them. `…` stands for more."""
    documents = [*sorted(RUNBOOKS.glob("*.md")), ROOT / "README.md", ROOT / "ops" / "cloudrun" / "README.md"]
    found = 0
    for path in documents:
        for line in re.findall(r"`flask --app app\.wsgi ([^`]+)`", path.read_text(encoding="utf-8")):
            words = line.split()
            command: Any = fresh.app.cli
            while isinstance(command, click.Group) and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            needed = [o for o in command.params if isinstance(o, click.Option) and o.required]
            lacking = [o.opts[0] for o in needed if not set(o.opts) & set(words) and "…" not in words]
            assert lacking == [], f"{path.name}: {line}"
            found += len(needed)
    assert found


def test_the_readme_has_every_command(fresh: Operator) -> None:
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("## At the command line")
    section, _, _ = rest.partition("\n## ")
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    for word, then in _commands(fresh.app).items():
        mine = " ".join(cell for cell in cells if re.search(rf"`{word}\b", cell))
        assert mine, word
        assert {one for one in then if not re.search(rf"\b{one}\b", mine)} == set(), word


def _commands(app: Flask) -> dict[str, set[str]]:
    """Each command, and its own below it."""
    return {name: set(getattr(command, "commands", {})) for name, command in app.cli.commands.items()}
