"""The one confusing refusal: "Algo orders are not allowed from this app" has four causes and names none of them."""

from __future__ import annotations

from app.domain.outcome import Refused

CODE = "-50"
WORDS = "algo orders are not allowed"


def explained(outcome: Refused, app_id: str) -> Refused:
    """The same refusal; that one with what to check, in the order in which it is quickly checked (fyers-api.md 5)."""
    if outcome.code != CODE or WORDS not in outcome.message.lower():
        return outcome
    return Refused(outcome.code, f"{outcome.message} {causes(app_id)}", outcome.retry_after_s)


def causes(app_id: str) -> str:
    _, dash, suffix = app_id.strip().rpartition("-")
    ending = f"-{suffix}" if dash else "nothing that Fyers gives out" if app_id.strip() else "empty"
    client = (
        f"the app id this service sends is {ending}" if not app_id.strip() else f"this one ends in {ending}"
    )
    return (
        "Fyers says this for four different reasons; check at myapi.fyers.in: "
        f"(1) the app is an old one, or was created anew and FYERS_APP_ID still names the old: {client}, and only "
        "ids that end in -200 may place orders; "
        "(2) the address that the order came from is not the app's static IP: `flask --app app.wsgi preflight` shows "
        "the service's own (PREFLIGHT_IP_URL); "
        "(3) the app lacks the permission Order Placement, which is off when an app is created; "
        "(4) the app id in the request is empty: FYERS_APP_ID is not set where the service runs."
    )
