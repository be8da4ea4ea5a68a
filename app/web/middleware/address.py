"""Whose address it is: counted from the right of X-Forwarded-For, never from the left, which the client writes."""

from __future__ import annotations

from flask import Request


def client_address(request: Request, trusted_hops: int) -> str:
    """The sender's address behind `trusted_hops` proxies of ours; with fewer entries the peer's own."""
    peer = request.remote_addr or "unknown"
    if trusted_hops == 0:
        return peer
    entries = [
        e.strip() for e in ",".join(request.headers.getlist("X-Forwarded-For")).split(",") if e.strip()
    ]
    return entries[-trusted_hops][:45] if len(entries) >= trusted_hops else peer
