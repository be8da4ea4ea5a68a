"""What is noted of a span until the library's own is made of it (tracing.py): whoever works pays for no more.

Attributes are chosen by hand, and none holds a value that a request or a statement brought with it: routes and not paths,
the first word and the table of a statement and not its text, codes and not details.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

MOST_STATEMENTS = 100
"""On one span. An alert has some thirteen; a purge or the pass after a long stop may have thousands."""
_TABLE = re.compile(r"\s*(\w+)(?:(?<=UPDATE)\s+(\w+)|.*?\b(?:FROM|INTO)\s+(\w+))?", re.IGNORECASE | re.DOTALL)
_RANDOM = RandomIdGenerator()
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(slots=True, eq=False)
class Noted:
    """A span to be: begun, and later ended."""

    name: str
    kind: SpanKind
    parent: SpanContext | None
    here: SpanContext
    attributes: dict[str, str | int]
    links: tuple[Link, ...] = ()
    began_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    error: str | None = None
    """The class of what it ended with, as its text may hold anything; empty: it failed without one."""
    phases: Mapping[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The first MOST_STATEMENTS that ran under it, and how many more."""
    more: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Number in `asked` and the error's class."""

    def all_attributes(self) -> dict[str, str | int]:
        found = dict(self.attributes)
        if self.phases:
            found["phases_ms"] = "; ".join(f"{name} {s * 1000:.1f}" for name, s in self.phases.items())
        if self.asked:
            found["db.statements"] = self._statements()
        return found

    def _statements(self) -> str:
        if not self.failed and not self.more:
            return _told(tuple(self.asked))
        told = [f"{_words_of(s)} {self.failed.get(n, '')}".rstrip() for n, s in enumerate(self.asked)]
        return "; ".join([*told, *([f"and {self.more} more"] if self.more else [])])


HERE: ContextVar[Noted | None] = ContextVar("span", default=None)
"""The one that this thread is in."""


@lru_cache(512)
def _words_of(statement: str) -> str:
    """A statement's first word and table, and nothing that a caller brought."""
    found = _TABLE.match(statement)
    return f"{found[1].upper()} {found[2] or found[3] or ''}".strip() if found else "SQL"


@lru_cache(512)
def _told(statements: tuple[str, ...]) -> str:
    """Nearly every alert asks the same of the database, in the same order."""
    return "; ".join(_words_of(s) for s in statements)


class OnSpan:
    """Each is told on the span that it ran under: a span or a clock for each would slow an alert. A look outside of any
    request or job is no trace of its own. Implements store.prepared.Hearer.
    """

    @staticmethod
    def asked(statement: str) -> None:
        if (here := HERE.get()) is None:
            return
        if len(here.asked) < MOST_STATEMENTS:
            here.asked.append(statement)
        else:
            here.more += 1

    @staticmethod
    def failed(statement: str | None, error: BaseException) -> None:
        here = HERE.get()
        if here is not None and here.asked and statement == here.asked[-1] and not here.more:
            here.failed[len(here.asked) - 1] = type(error).__name__


def begin(name: str, kind: SpanKind, parent: SpanContext | None, attributes: dict[str, str | int]) -> Noted:
    trace_id = _RANDOM.generate_trace_id() if parent is None else parent.trace_id
    here = SpanContext(
        trace_id,
        _RANDOM.generate_span_id(),
        is_remote=False,
        trace_flags=SAMPLED,
        trace_state=None if parent is None else parent.trace_state,
    )
    return Noted(name, kind, parent, here, attributes)
