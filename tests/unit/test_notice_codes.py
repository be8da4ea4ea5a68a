"""Every code that is told is a known one, stands in the README, and is what a preference may name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.service.notices import CODES, DERIVED

ROOT = Path(__file__).parents[2]
NAMED = {
    "BY": "daily_loss",
    "UNKNOWN": "daily_loss_unknown",
    "UNFILLED": "exit_unfilled",
    "RUNAWAY": "runaway",
}
HANDED_ON = {"code", "what[0]"}
"""Whoever hands on what another one told; tokens.py tells its errors' codes."""
OF_ERRORS = {
    "token_expired",
    "token_damaged",
    "token_key_missing",
    "token_swapped",
    "token_store_unavailable",
}


def _told() -> Iterator[str]:
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "notify" and len(node.args) == 2:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value
                elif (word := ast.unparse(first)) not in HANDED_ON:
                    yield NAMED[word]


def test_what_is_told_is_what_is_known() -> None:
    assert set(_told()) | OF_ERRORS | {code for code, _ in DERIVED.values()} == CODES


def test_the_readme_names_each() -> None:
    named = set(re.findall(r"`([a-z_]+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set() == CODES - named
