"""service.clients.Clients on SQLite and Postgres."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from app.domain.alert import ClientLimits
from app.domain.deadline import Deadline
from app.errors import NotAllowed, NotFound
from app.service.clients import Client, ClientScope, Credential, Registered
from app.store.engine import Database
from app.store.sql_orders import upsert
from app.store.tables_clients import api_clients, api_tokens, webhook_messages

c, t = api_clients.c, api_tokens.c


class SqlClients:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, client: Client, digest: str) -> None:
        with self._database.write() as connection:
            now = self._database.now(connection)
            new = upsert(connection)(api_clients).values(
                **_values(client), name=client.name, created_at=now, revoked_at=None
            )
            fresh = {name: new.excluded[name] for name in (*_values(client), "created_at", "revoked_at")}
            row = new.on_conflict_do_update(
                index_elements=[c.name], set_=fresh, where=c.revoked_at.is_not(None)
            )
            if connection.execute(row.returning(c.name)).one_or_none() is None:
                raise NotAllowed(
                    f"there is a client {client.name} already: rotate its token, or revoke it first",
                    code="client_exists",
                )
            connection.execute(insert(api_tokens).values(digest=digest, client=client.name, created_at=now))

    def rotate(self, name: str, digest: str, grace: timedelta) -> datetime | None:
        with self._database.write() as connection:
            now = self._database.now(connection)
            _client(connection, name, live=True)
            newest = connection.execute(
                select(t.digest, t.ends_at).where(t.client == name).order_by(t.created_at.desc(), t.digest)
            ).first()
            ends_at = None
            if newest is not None and grace > timedelta(0):
                ends_at = min(now + grace, newest.ends_at or now + grace)
                connection.execute(
                    update(api_tokens).where(t.digest == newest.digest).values(ends_at=ends_at)
                )
            # Deleted, not ended: a revoked token must not come to life by another machine's clock.
            kept = newest.digest if ends_at is not None and newest is not None else ""
            connection.execute(delete(api_tokens).where(t.client == name, t.digest != kept))
            connection.execute(insert(api_tokens).values(digest=digest, client=name, created_at=now))
            return ends_at

    def revoke(self, name: str) -> bool:
        with self._database.write() as connection:
            now = self._database.now(connection)
            known = _client(connection, name, live=False)
            connection.execute(delete(api_tokens).where(t.client == name))
            if known.revoked_at is not None:
                return False
            connection.execute(update(api_clients).where(c.name == name).values(revoked_at=now))
            return True

    def registered(self) -> tuple[Registered, ...]:
        with self._database.read() as connection:
            clients = connection.execute(select(api_clients).order_by(c.name)).all()
            rows = connection.execute(select(api_tokens).order_by(t.created_at.desc(), t.digest)).all()
        tokens = defaultdict(list)
        for row in rows:
            tokens[row.client].append(row)
        found = []
        for row in clients:
            client = _client_of(row)
            own = tuple(Credential(r.digest, client, r.ends_at) for r in tokens[client.name])
            found.append(Registered(client, row.created_at, row.revoked_at, own))
        return tuple(found)

    def credentials(self, deadline: Deadline | None = None) -> tuple[Credential, ...]:
        wanted = select(t.digest, t.ends_at, api_clients).join(api_clients, c.name == t.client)
        with self._database.read(deadline) as connection:
            rows = connection.execute(wanted.where(c.revoked_at.is_(None))).all()
        return tuple(Credential(row.digest, _client_of(row), row.ends_at) for row in rows)

    def first_content(self, message_id: str, content: str, life: timedelta) -> str:
        m = webhook_messages.c
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(delete(webhook_messages).where(m.expires_at <= now))
            row = upsert(connection)(webhook_messages).values(
                id=message_id, content=content, expires_at=now + life
            )
            # Of two at once the second waits here for the first's commit, and then reads what that one has kept.
            connection.execute(row.on_conflict_do_nothing())
            return str(connection.execute(select(m.content).where(m.id == message_id)).scalar_one())


def _client(connection: Connection, name: str, *, live: bool) -> Row[Any]:
    """The client's row, locked: rotations and revocations of one client happen one after the other."""
    row = connection.execute(select(api_clients).where(c.name == name).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"there is no client {name}: see `clients list`")
    if live and row.revoked_at is not None:
        raise NotFound(f"the client {name} is revoked: `clients create` gives it its name back")
    return row


def _values(client: Client) -> dict[str, Any]:
    symbols = client.limits.symbols
    return {
        "scopes": ",".join(sorted(client.scopes)),
        "max_lots": client.limits.max_lots,
        "symbols": None if symbols is None else ",".join(sorted(symbols)),
        "networks": ",".join(client.networks),
        "expires_at": client.expires_at,
        "created_by": client.created_by,
    }


def _client_of(row: Row[Any]) -> Client:
    return Client(
        name=row.name,
        scopes=frozenset(ClientScope(word) for word in row.scopes.split(",")),
        limits=ClientLimits(row.max_lots, None if row.symbols is None else frozenset(row.symbols.split(","))),
        networks=tuple(filter(None, row.networks.split(","))),
        expires_at=row.expires_at,
        created_by=row.created_by,
    )
