"""Whose address it is: counted from the right of X-Forwarded-For, never from the left, which the client writes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from flask import Request

from app.errors import NotAllowed

Networks = tuple[IPv4Network | IPv6Network, ...]
TRADINGVIEW = ("52.89.214.238", "34.212.75.30", "54.218.53.128", "52.32.178.7")
"""The addresses that TradingView says its webhooks come from."""


def networks_of(allowlist: str) -> Networks:
    """Parse `IP_ALLOWLIST`: the word `tradingview`, addresses and CIDRs. Empty: no limit. Raises ValueError."""
    words = [w.strip().lower() for w in allowlist.split(",") if w.strip()]
    return tuple(ip_network(a) for w in words for a in (TRADINGVIEW if w == "tradingview" else (w,)))


def check_address(address: str, networks: Networks) -> None:
    """Raises NotAllowed when there is a list and the address is not on it. What is no address is on no list."""
    if not networks:
        return
    try:
        given = ip_address(address)
    except ValueError:
        raise NotAllowed("expected an address of the allowlist") from None
    mapped = getattr(given, "ipv4_mapped", None) or given
    if not any(mapped in network for network in networks):
        raise NotAllowed("expected an address of the allowlist")


def client_address(request: Request, trusted_hops: int) -> str:
    """The sender's address behind `trusted_hops` proxies of ours; with fewer entries the peer's own."""
    peer = request.remote_addr or "unknown"
    if trusted_hops == 0:
        return peer
    entries = [
        e.strip() for e in ",".join(request.headers.getlist("X-Forwarded-For")).split(",") if e.strip()
    ]
    return entries[-trusted_hops][:45] if len(entries) >= trusted_hops else peer
