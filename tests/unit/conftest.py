"""Fixtures that more than one file here asks for."""

from __future__ import annotations

from tests.unit.operator_desk import fresh, operator

__all__ = ["fresh", "operator"]
