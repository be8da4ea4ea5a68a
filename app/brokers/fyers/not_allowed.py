"""The one confusing refusal: "Algo orders are not allowed from this app" has four causes and names none of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from app.domain.alert import IST
from app.domain.outcome import Refused

CODE = "-50"
WORDS = "algo orders are not allowed"


class SeenAddress:
    """The address that this host's orders were last seen to leave from. Preflight asks for it; an order has no time to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, address: str) -> None:
        with suppress(OSError):  # a convenience: without it the text says how to find out
            self._path.write_text(address + "\n", encoding="ascii")

    def text(self) -> str:
        with suppress(OSError, ValueError):
            seen = datetime.fromtimestamp(self._path.stat().st_mtime, IST)
            return f"{ip_address(self._path.read_text(encoding='ascii').strip())}, as seen at {seen:%d %b %H:%M} IST"
        return "unknown here"


def explained(outcome: Refused, app_id: str, address: SeenAddress | None = None) -> Refused:
    """The same refusal; that one with what to check, in the order in which it is quickly checked (fyers-api.md 5)."""
    if outcome.code != CODE or WORDS not in outcome.message.lower():
        return outcome
    where = address.text() if address is not None else "unknown here"
    said = outcome.message.rstrip(".")
    return Refused(outcome.code, f"{said}. {causes(app_id, where)}", outcome.retry_after_s)


def causes(app_id: str, address: str) -> str:
    _, dash, suffix = app_id.strip().rpartition("-")
    ending = f"-{suffix}" if dash else "nothing that Fyers gives out" if app_id.strip() else "empty"
    client = (
        f"the app id this service sends is {ending}" if not app_id.strip() else f"this one ends in {ending}"
    )
    return (
        "Fyers says this for four different reasons; check at myapi.fyers.in: "
        f"(1) the app is an old one, or was created anew and FYERS_APP_ID still names the old: {client}, and only "
        "ids that end in -200 may place orders; "
        f"(2) the address that the order came from ({address}) is not the app's static IP: "
        "`flask --app app.wsgi preflight` shows the service's own (PREFLIGHT_IP_URL); "
        "(3) the app lacks the permission Order Placement, which is off when an app is created; "
        "(4) the app id in the request is empty: FYERS_APP_ID is not set where the service runs."
    )


def seen_address(instance_dir: Path) -> SeenAddress:
    return SeenAddress(instance_dir / "egress_address")
