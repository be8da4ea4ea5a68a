"""The look before the market opens as a job, and a page when not ready. The table of jobs says when: once on each
trading day, and again when it failed or its process died.
"""

from __future__ import annotations

from app.preflight import preflight
from app.web.ports import Ports


def run(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Look whether orders could go out now, and tell a person when not."""
    found = preflight(ports)
    if found.is_ready:
        return "ready"
    reasons = "; ".join(f"{f.name}: {f.said}" for f in found.bad)
    ports.notifier.notify("preflight_not_ready", f"no order would go out now. {reasons}", page=True)
    return f"not ready: {reasons}"
