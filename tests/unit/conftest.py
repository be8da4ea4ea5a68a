"""Fixtures that more than one file here asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings
from tests.unit.login_fixtures import login_sim, new_desk
from tests.unit.operator_desk import fresh, operator

__all__ = ["fresh", "login_sim", "new_desk", "operator"]


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting is given, and no .env lies here."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
