"""Statements that are built once, compiled once and put straight to the driver.

SQLAlchemy's execution costs the interpreter more than the way to the server and back, and an alert asks some twenty
times. A statement is built with it all the same, and its types convert what goes in and what comes out; only what it
does anew at each execution is done once. For statements whose text does not depend on their values (no IN over a
list), and whose answer is few rows: all of them are fetched.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Insert, SelectBase, TextClause, Update, event
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Place = TypeVar("Place", int, str)
Statement = SelectBase | Insert | Update | TextClause
HEARER = "hearer_of_statements"
"""The engine's execution option with a `Hearer`, if anybody wants to hear each statement."""


class Hearer(Protocol):
    def asked(self, statement: str) -> None: ...

    def failed(self, statement: str | None, error: BaseException) -> None: ...


def hear(engine: Engine, hearer: Hearer) -> None:
    """Tell of every statement on this engine, SQLAlchemy's own and those of `Prepared`."""

    def asked(_cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401
        hearer.asked(statement)

    def failed(found: Any) -> None:  # noqa: ANN401
        hearer.failed(found.statement, found.original_exception)

    # The dialect's events: with one of the engine's own, SQLAlchemy prepares every statement for all of its events.
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine, name, asked)
    event.listen(engine, "handle_error", failed)
    engine.update_execution_options(**{HEARER: hearer})


class Prepared:
    """One statement, on whichever database it is asked. Safe for many threads.

    An INSERT or UPDATE without values of its own takes its columns from the names of the values that come with it, as
    SQLAlchemy does: each set of names is compiled for itself.
    """

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._by_names = isinstance(statement, Insert | Update)
        self._known: dict[object, _Compiled] = {}

    def all(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Every row, as a named tuple; none for a statement that gives no rows. Raises the driver's own errors."""
        dialect = connection.dialect
        key = (dialect.name, *values) if self._by_names else dialect.name
        compiled = self._known.get(key)
        if compiled is None:
            compiled = self._known[key] = _Compiled(self._statement, dialect, list(values))
        return compiled.ask(connection, values)

    def one_or_none(self, connection: Connection, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a named tuple
        """The only row, if there is one."""
        rows = self.all(connection, values)
        if len(rows) > 1:
            raise LookupError(f"expected one row at most, were {len(rows)}")
        return rows[0] if rows else None


class _Compiled:
    def __init__(self, statement: Statement, dialect: Dialect, names: list[str]) -> None:
        compiled = statement.compile(dialect=_spoken(dialect), column_keys=names)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(f"expected a statement, was {statement!r}")
        self._sql = str(compiled)
        self._places: Sequence[str] | None = compiled.positiontup
        self._fixed = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        self._into = _converters(
            (name, bound.type.dialect_impl(dialect).bind_processor(dialect))
            for name, bound in compiled.binds.items()
        )
        self._types = _types(statement, dialect)
        self._dialect = dialect
        self._rows: Callable[[list[Any]], list[Any]] | None = None
        self._asked = False

    def ask(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        given: Any = {**self._fixed, **values}
        for name, convert in self._into:
            given[name] = convert(given[name])
        if self._places is not None:
            given = tuple(given[name] for name in self._places)
        if not connection.in_transaction():  # SQLAlchemy would neither begin one for it nor end it
            raise RuntimeError("expected a transaction that has begun")
        raw: Any = connection.connection.dbapi_connection
        cursor = connection.info.get("cursor")
        if cursor is None:
            cursor = connection.info["cursor"] = _cursor(connection, raw)
        hearer: Hearer | None = connection.get_execution_options().get(HEARER)
        if hearer is not None:
            hearer.asked(self._sql)
        try:
            cursor.execute(self._sql, given)
            if not self._asked:
                self._look(cursor)
            return [] if self._rows is None else self._rows(cursor.fetchall())
        except BaseException as error:
            _give_up(connection, raw, error)
            if hearer is not None:
                hearer.failed(self._sql, error)
            raise

    def _look(self, cursor: Any) -> None:  # noqa: ANN401 - the driver's
        """What the rows are like, at the first of them: their names and how each value is read."""
        described = cursor.description
        if described is not None:
            kind = namedtuple("Row", [d[0] for d in described], rename=True)  # type: ignore[misc]  # noqa: PYI024
            processors = enumerate(
                of_type.result_processor(self._dialect, d[1])
                for of_type, d in zip(self._types, described, strict=False)
            )
            self._rows = _reader(kind._make, _converters(processors))
        self._asked = True


def _spoken(dialect: Dialect) -> Dialect:
    """Postgres's own places for values ($1): psycopg would look for its own in every long statement anew."""
    if dialect.name == "sqlite":
        return dialect
    of_driver: Any = type(dialect)
    spoken: Dialect = of_driver(paramstyle="numeric_dollar")
    return spoken


def _cursor(connection: Connection, raw: Any) -> Any:  # noqa: ANN401 - the driver's
    driver: Any = connection.dialect.loaded_dbapi
    return raw.cursor() if connection.dialect.name == "sqlite" else driver.RawCursor(raw)


def _give_up(connection: Connection, raw: Any, error: BaseException) -> None:  # noqa: ANN401 - the driver's
    """What SQLAlchemy does after a statement of its own has failed."""
    # SQLite's statement would stay open, and the connection with the database as it was when that began.
    with suppress(Exception):
        connection.info.pop("cursor").close()
    if getattr(raw, "closed", False) or not isinstance(error, Exception):
        connection.invalidate(error)  # lost, or left in the middle: it must not serve the next


def _reader(
    make: Callable[[Iterable[Any]], Any], out_of: list[tuple[int, Callable[[Any], Any]]]
) -> Callable[[list[Any]], list[Any]]:
    def read(rows: list[Any]) -> list[Any]:
        if not out_of:
            return [make(row) for row in rows]
        made = []
        for row in rows:
            values = list(row)
            for place, convert in out_of:
                values[place] = convert(values[place])
            made.append(make(values))
        return made

    return read


def _converters(
    found: Iterable[tuple[Place, Callable[[Any], Any] | None]],
) -> list[tuple[Place, Callable[[Any], Any]]]:
    return [(place, convert) for place, convert in found if convert is not None]


def _types(statement: Statement, dialect: Dialect) -> list[TypeEngine[Any]]:
    """Of the columns that come back. A text names none: its values are the driver's."""
    if isinstance(statement, TextClause):
        return []
    columns = statement.selected_columns if isinstance(statement, SelectBase) else statement.exported_columns
    return [column.type.dialect_impl(dialect) for column in columns]
