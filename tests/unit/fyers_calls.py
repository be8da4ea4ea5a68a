"""Calls of the Fyers transport that tests make over and over."""

from __future__ import annotations

import traceback
from time import monotonic

import pytest

from app.brokers.fyers import sdk
from app.brokers.fyers.client import FyersClient, Reply, TransportError
from app.domain.deadline import Deadline

SECRET = "APP-100:very.secret.token"
sdk.load()  # as at a start: its import would eat a short deadline

BUDGET_S = 0.2
GRACE_S = 0.1


def client_of(
    url: str, ca_file: str | None = None, *, connect_s: float = 5.0, read_s: float = 5.0
) -> FyersClient:
    return FyersClient(
        f"{url}/api/v3", f"{url}/data", connect_timeout_s=connect_s, read_timeout_s=read_s, ca_file=ca_file
    )


def within(seconds: float = BUDGET_S) -> Deadline:
    return Deadline(monotonic() + seconds)


def place(client: FyersClient, deadline: Deadline | None = None) -> Reply:
    with client.exchange(deadline or within(2), SECRET) as exchange:
        return exchange.sdk().place_order({"symbol": "NSE:X", "qty": 65})


def failure_of(client: FyersClient, deadline: Deadline | None = None) -> TransportError:
    """Place an order that must fail, and show that it ended in time and told no secret."""
    deadline = deadline or within()
    latest = max(deadline.at, monotonic()) + GRACE_S
    with pytest.raises(TransportError) as caught:
        place(client, deadline)
    assert monotonic() < latest
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "secret" not in shown
    client.close()
    return caught.value
