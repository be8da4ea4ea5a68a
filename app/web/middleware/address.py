"""Whose address it is: counted from the right of X-Forwarded-For, never from the left, which the client writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flask import Request

from app.errors import NotAllowed
from app.service.config_lists import listed

Networks = tuple[IPv4Network | IPv6Network, ...]
TRADINGVIEW = ("52.89.214.238", "34.212.75.30", "54.218.53.128", "52.32.178.7")
"""The addresses that TradingView says its webhooks come from."""
MAX_ADDRESS = 45
"""Characters of an IPv6 address at its longest; what is longer is none."""
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)


def networks_of(allowlist: str | Sequence[str]) -> Networks:
    """Parse an allowlist: the word `tradingview`, addresses and CIDRs. Empty: no limit. Raises ValueError."""
    text = allowlist if isinstance(allowlist, str) else ",".join(allowlist)
    words = listed(text.lower())
    return tuple(ip_network(a) for w in words for a in (TRADINGVIEW if w == "tradingview" else (w,)))


def check_address(address: str, networks: Networks) -> None:
    """Raises NotAllowed when there is a list and the address is not on it. What is no address is on no list."""
    if not networks:
        return
    try:
        given = ip_address(address)
    except ValueError:
        raise NotAllowed("expected an address of the allowlist") from None
    mapped = (given.ipv4_mapped or given) if isinstance(given, IPv6Address) else given
    if not any(mapped in network for network in networks):
        raise NotAllowed("expected an address of the allowlist")


def client_address(request: Request, trusted_hops: int) -> str:
    """The sender's address behind `trusted_hops` proxies of ours; with fewer entries the peer's own.

    Each proxy of ours appends whom it saw, so the entry that many from the right is the first that a sender cannot
    write. It is taken as it stands, without its port: one that is no address is on no allowlist.
    """
    peer = request.remote_addr or "unknown"
    if trusted_hops == 0:
        return peer
    entries = [
        e.strip() for e in ",".join(request.headers.getlist("X-Forwarded-For")).split(",") if e.strip()
    ]
    return _without_port(entries[-trusted_hops]) if len(entries) >= trusted_hops else peer


def _without_port(entry: str) -> str:
    """Some proxies append `203.0.113.5:4711` or `[2001:db8::5]:4711`."""
    found = _WITH_PORT.fullmatch(entry)
    return ((found[1] or found[2]) if found else entry)[:MAX_ADDRESS]
