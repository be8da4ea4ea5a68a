"""A working register of clients in memory, and a short way to put one in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.alert import ClientLimits
from app.domain.deadline import Deadline
from app.errors import NotAllowed, NotFound, StoreUnavailable
from app.service.clients import Client, Clients, ClientScope, Credential, Registered, digest_of, new_token
from app.service.ports import Clock


class FakeClients:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, Registered] = {}
        self.messages: dict[str, tuple[str, datetime]] = {}
        self.down = False
        self.reads = 0

    def create(self, client: Client, digest: str) -> None:
        known = self.rows.get(client.name)
        if known is not None and known.revoked_at is None:
            raise NotAllowed("there is one already", code="client_exists")
        token = Credential(digest, client, None)
        self.rows[client.name] = Registered(client, self.clock.now(), None, (token,))

    def rotate(self, name: str, digest: str, grace: timedelta) -> datetime | None:
        known = self._known(name)
        if known.revoked_at is not None:
            raise NotFound(f"{name} is revoked")
        old: tuple[Credential, ...] = ()
        if known.tokens and grace > timedelta(0):
            end = self.clock.now() + grace
            old = (replace(known.tokens[0], ends_at=min(end, known.tokens[0].ends_at or end)),)
        self.rows[name] = replace(known, tokens=(Credential(digest, known.client, None), *old))
        return old[0].ends_at if old else None

    def revoke(self, name: str) -> bool:
        known = self._known(name)
        self.rows[name] = replace(known, tokens=(), revoked_at=known.revoked_at or self.clock.now())
        return known.revoked_at is None

    def registered(self) -> tuple[Registered, ...]:
        return tuple(self.rows[name] for name in sorted(self.rows))

    def credentials(self, deadline: Deadline | None = None) -> tuple[Credential, ...]:
        self.reads += 1
        if self.down:
            raise StoreUnavailable("the database is down")
        return tuple(c for row in self.rows.values() if row.revoked_at is None for c in row.tokens)

    def first_content(self, message_id: str, content: str, life: timedelta) -> str:
        if self.down:
            raise StoreUnavailable("the database is down")
        now = self.clock.now()
        self.messages = {k: v for k, v in self.messages.items() if v[1] > now}
        return self.messages.setdefault(message_id, (content, now + life))[0]

    def _known(self, name: str) -> Registered:
        if name not in self.rows:
            raise NotFound(f"there is no client {name}")
        return self.rows[name]


def a_client(clients: Clients, name: str = "desk-2", *scopes: str, **changes: Any) -> str:
    """A new client in a register, by its token."""
    limits = ClientLimits(changes.pop("max_lots", None), changes.pop("symbols", None))
    kinds = frozenset(ClientScope(s) for s in scopes or ("orders", "read"))
    token = new_token()
    clients.create(Client(name, kinds, limits, **changes), digest_of(token))
    return token
