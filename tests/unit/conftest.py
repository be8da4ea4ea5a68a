"""Fixtures that more than one file here asks for."""

from __future__ import annotations

from tests.unit.login_fixtures import login_sim, new_desk
from tests.unit.operator_desk import fresh, operator

__all__ = ["fresh", "login_sim", "new_desk", "operator"]
