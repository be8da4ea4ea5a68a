"""service.config.ConfigStore and service.experiments.TrialStore on SQLite and Postgres."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Row, select

from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.experiment import Experiment
from app.domain.order import Scope
from app.service.config import Change, Version
from app.service.config_document import Raw
from app.service.experiments import Adjusted, Trials
from app.service.takeover import exit_of
from app.store.engine import Database
from app.store.sql_orders import of_scope, upsert
from app.store.sql_rows import order_from
from app.store.tables import IS_FILLED, holding_adjustments, orders
from app.store.tables_config import config_versions, preferences

v, p = config_versions.c, preferences.c


class SqlConfig:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newer(self, scope: Scope, than: int, deadline: Deadline | None = None) -> Version | None:
        wanted = _of(scope).where(v.version > than).order_by(v.version.desc()).limit(1)
        with self._database.read(deadline) as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else _version(row)

    def version(self, scope: Scope, number: int) -> Version | None:
        with self._database.read() as connection:
            row = connection.execute(_of(scope).where(v.version == number)).one_or_none()
        return None if row is None else _version(row)

    def history(self, scope: Scope, limit: int) -> tuple[Version, ...]:
        with self._database.read() as connection:
            rows = connection.execute(_of(scope).order_by(v.version.desc()).limit(limit)).all()
        return tuple(_version(row) for row in rows)

    def append(self, scope: Scope, version: Version) -> Version | None:
        with self._database.write() as connection:
            now = self._database.now(connection)
            known = connection.execute(_of(scope).where(v.version == version.number)).one_or_none()
            # Where writers queue (SQLite) this decides; the conflict below is Postgres'.
            if known is not None:
                return None
            new = upsert(connection)(config_versions).values(
                mode=scope.mode.value,
                account=scope.account,
                version=version.number,
                at=now,
                changed_by=version.by,
                reason=version.reason,
                document=dict(version.document),
                changes=[[c.name, c.old, c.new] for c in version.changes],
            )
            taken = connection.execute(new.on_conflict_do_nothing().returning(v.version)).one_or_none()
            return None if taken is None else replace(version, at=now)

    def preferences(self, client: str) -> Raw | None:
        with self._database.read() as connection:
            found: Raw | None = connection.execute(
                select(p.value).where(p.client == client)
            ).scalar_one_or_none()
        return found

    def set_preferences(self, client: str, value: Raw) -> None:
        with self._database.write() as connection:
            now = self._database.now(connection)
            new = upsert(connection)(preferences).values(client=client, value=dict(value), updated_at=now)
            fresh = {"value": new.excluded["value"], "updated_at": new.excluded["updated_at"]}
            connection.execute(new.on_conflict_do_update(index_elements=[p.client], set_=fresh))

    def trials(self, scope: Scope, experiment: Experiment) -> Trials:
        """The experiment's orders, and every fill and adjustment in the contracts that it traded."""
        o, a = orders.c, holding_adjustments.c
        mine = of_scope(orders, scope) & o.variant.in_([experiment.label(one) for one in experiment.variants])
        tickers = select(o.ticker).where(mine, o.filled_quantity > 0)
        filled = select(orders).where(of_scope(orders, scope), IS_FILLED, o.ticker.in_(tickers))
        adjusted = select(holding_adjustments).where(
            of_scope(holding_adjustments, scope), a.ticker.in_(tickers)
        )
        with self._database.read() as connection:
            entries = connection.execute(select(orders).where(mine).order_by(o.created_at, o.id)).all()
            fills = connection.execute(filled.order_by(o.created_at, o.id)).all()
            others = connection.execute(adjusted.order_by(a.id)).all()
        return Trials(
            tuple(order_from(row) for row in entries),
            tuple(order_from(row) for row in fills),
            tuple(_adjusted(row) for row in others),
        )


def _of(scope: Scope) -> Any:  # noqa: ANN401 - a Select of the table's columns
    return select(config_versions).where(of_scope(config_versions, scope))


def _adjusted(row: Row[Any]) -> Adjusted:
    product, of = Product(row.product), exit_of(row.reason)
    return Adjusted(row.client, row.ticker, product, row.delta, row.at, row.price, of)


def _version(row: Row[Any]) -> Version:
    changes = tuple(Change(*one) for one in row.changes)
    return Version(row.version, row.at, row.changed_by, row.reason, row.document, changes)
