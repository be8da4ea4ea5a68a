"""The names that the suite has cases for. A run that meets another one fails, and so does a name nobody passes."""

from __future__ import annotations

KNOWN: dict[str, frozenset[str]] = {}
