"""Alarms and dashboards: each expression reads what the service exports, each alarm has been seen to fire and not to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from flask import Flask

from app.jobs.run import JOBS
from tests.unit.operator_desk import Operator
from tests.unit.operator_desk import fresh as fresh  # noqa: PLC0414 - a fixture
from tests.unit.ops_rules import (
    OF_PROMETHEUS,
    PROMETHEUS,
    ROOT,
    RUNBOOKS,
    alarms,
    dashboards,
    exported,
    names_in,
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
    (tmp_path / "tests.yml").write_text((PROMETHEUS / "tests.yml").read_text(encoding="utf-8"))
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


def _commands(app: Flask) -> dict[str, set[str]]:
    """Each command, and its own below it."""
    return {name: set(getattr(command, "commands", {})) for name, command in app.cli.commands.items()}
