"""What preflight asks the network: Fyers' funds and market status, the time it tells, and our own address."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from ipaddress import ip_address

from app.brokers.fyers.client import Exchange, FyersClient, Reply, TransportError
from app.brokers.fyers.master_http import DownloadError, http_get
from app.domain.deadline import Deadline
from app.web.ports import Ports

LOOK_S = 5.0
"""For the two reads together; a person waits."""
ADDRESS_S = 3.0
MOST_ADDRESS_BYTES = 4096
AVAILABLE = 10
"""The row of `fund_limit` that a new order may use (fyers-api.md 2.6)."""
NSE, DERIVATIVES = 10, 11


@dataclass(frozen=True, slots=True)
class BrokerLook:
    """What came. `was_asked`: there was a token to ask with. `trouble` says why Fyers' own answer is missing; `offset_s` above zero: our clock is ahead."""

    was_asked: bool = True
    trouble: str = ""
    is_refused: bool = False
    available: Decimal | None = None
    offset_s: float | None = None
    market: str | None = None
    address: str | None = None
    address_trouble: str = ""


def look_at_broker(ports: Ports) -> BrokerLook:
    settings = ports.settings
    token = ports.tokens.current(ports.clock.now())
    look = BrokerLook(was_asked=False)
    if token is not None:
        client = FyersClient(
            settings.fyers_api_url, settings.fyers_data_url, connect_timeout_s=LOOK_S, read_timeout_s=LOOK_S
        )
        deadline = Deadline(ports.clock.monotonic() + LOOK_S)
        try:
            with client.exchange(deadline, f"{settings.fyers_app_id}:{token}") as exchange:
                look = _ask(exchange, ports)
        finally:
            client.close()
    return _with_address(look, settings.preflight_ip_url, ports.clock.monotonic())


def _ask(exchange: Exchange, ports: Ports) -> BrokerLook:
    if (over := ports.take_call()) is not None:
        return BrokerLook(trouble=f"not asked: {over}")
    try:
        reply = exchange.sdk().funds()
    except TransportError as error:
        return BrokerLook(trouble=f"Fyers does not answer: {error}")
    look = BrokerLook(offset_s=_offset_s(reply, ports.clock.now()))
    body = _fields(reply)
    if reply.status != 200 or body.get("s") != "ok":  # noqa: PLR2004 - HTTP's OK
        said = str(body.get("message") or "").strip()[:200]
        text = f"Fyers answered {reply.status}" + (f", code {body.get('code')}: {said}" if said else "")
        return replace(look, trouble=text, is_refused=reply.status in (401, 403))
    return replace(look, available=_available(body), market=_market(exchange, ports))


def _fields(reply: Reply) -> dict[str, object]:
    body = reply.json_or_none()
    return body if isinstance(body, dict) else {}


def _rows(body: dict[str, object], name: str) -> list[dict[str, object]]:
    rows = body.get(name)
    return [r for r in rows if isinstance(r, dict)] if isinstance(rows, list) else []


def _available(body: dict[str, object]) -> Decimal | None:
    for row in _rows(body, "fund_limit"):
        if row.get("id") == AVAILABLE:
            try:
                amount = Decimal(str(row.get("equityAmount")))
            except InvalidOperation:
                return None
            return amount if amount.is_finite() else None
    return None


def _market(exchange: Exchange, ports: Ports) -> str | None:
    """Of NSE's derivatives. None when it is not told: that keeps no order back."""
    if ports.take_call() is not None:
        return None
    try:
        rows = _rows(_fields(exchange.sdk().market_status()), "marketStatus")
    except TransportError:
        return None
    found = [
        str(r.get("status")) for r in rows if (r.get("exchange"), r.get("segment")) == (NSE, DERIVATIVES)
    ]
    return found[0] if found else None


def _offset_s(reply: Reply, now: datetime) -> float | None:
    try:
        told = parsedate_to_datetime(reply.headers.get("Date", ""))
    except ValueError:
        return None
    return (now - told).total_seconds() if told.tzinfo else None


def _with_address(look: BrokerLook, url: str, now: float) -> BrokerLook:
    """The address that the outside sees us come from, as a page that we were pointed to tells it."""
    if not url:
        return look
    out = io.BytesIO()
    try:
        got = http_get(url, {}, out, MOST_ADDRESS_BYTES, now + ADDRESS_S)
        if got.status != 200:  # noqa: PLR2004 - HTTP's OK
            return replace(look, address_trouble=f"the page answered {got.status}")
        return replace(look, address=str(ip_address(out.getvalue().decode("ascii", "replace").strip())))
    except DownloadError as error:
        return replace(look, address_trouble=str(error))
    except ValueError:
        return replace(look, address_trouble="its answer is no address")
