"""What the operator may change while the service runs: limits, percents, flags, experiments.

All of it is one document by version numbers, kept in the database over the environment's settings. A version never
changes: who, when, why, what it was before. Each instance looks at most every KEEP_S whether there is a newer one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from app.domain.deadline import Deadline
from app.domain.experiment import FLAGS, Variant, first_overlap
from app.domain.order import Scope
from app.errors import FieldError, InvalidAlert, KeyInUse, NotFound, StoreUnavailable
from app.service.config_document import Document, Raw, document_of, flat, raw_of, readable_of, variants_in
from app.service.desk import Policy
from app.service.ports import Clock, Notifier

KEEP_S = 0.5
"""How old the knowledge of the newest version may be: a change is in force everywhere well within a second."""
READ_BOUND_S = 0.3
"""What looking may take. Others go on with what is known meanwhile, so that the two together stay under a second."""
WAIT_S = 2 * READ_BOUND_S
"""For another's look to end, which may have waited for a connection first."""
TRIES = 20
"""Of a change that others were quicker than, each time. Then the caller is told to try again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a version changed. Empty: there was, or is, none."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at: datetime
    by: str
    reason: str
    document: Raw
    changes: tuple[Change, ...]


FIRST = Version(0, datetime(1970, 1, 1, tzinfo=UTC), "", "as the environment says", {}, ())


class ConfigStore(Protocol):
    """Raises StoreUnavailable when it cannot answer."""

    def newer(self, scope: Scope, than: int, deadline: Deadline | None = None) -> Version | None:
        """The newest version, when its number is above `than`."""

    def version(self, scope: Scope, number: int) -> Version | None: ...

    def history(self, scope: Scope, limit: int) -> tuple[Version, ...]:
        """Newest first."""

    def append(self, scope: Scope, version: Version) -> Version | None:
        """Keep it, at the database's time. None: somebody has taken its number."""

    def preferences(self, client: str) -> Raw | None: ...

    def set_preferences(self, client: str, value: Raw) -> None: ...


@dataclass(frozen=True, slots=True)
class Effective:
    """What the settings come to: as texts by their names, and as what the verbs go by (without a tag prefix)."""

    values: Mapping[str, str]
    policy: Policy
    ip_allowlist: str
    rate_limit_webhook: str


class Rules(Protocol):
    """The models of the settings. `app/runtime.py` has those that read the environment."""

    names: tuple[str, ...]

    def effective(self, settings: Mapping[str, str]) -> Effective:
        """The environment's settings with these over them, checked as a whole. Raises InvalidAlert by names."""


@dataclass(frozen=True, slots=True)
class InForce:
    version: Version
    document: Document
    effective: Effective
    policy: Policy


@dataclass(frozen=True, slots=True)
class Done:
    """`changed` is false when everything was so already, and no version was made."""

    version: Version
    changed: bool


class Config:
    """One instance's view, and the way to change it for all. For all threads of the process."""

    def __init__(
        self, store: ConfigStore, scope: Scope, clock: Clock, rules: Rules, notifier: Notifier
    ) -> None:
        self.store, self.rules = store, rules
        self._scope, self._clock, self._notifier = scope, clock, notifier
        self._lock = threading.Lock()
        self._look_at = float("-inf")
        self._seen = -1
        self._known = self._of(FIRST, Document())

    def known(self) -> InForce:
        """The last known good, looked at anew when it is time; until a first read has succeeded the environment's.
        Never raises: a read that fails changes nothing.
        """
        now = self._clock.monotonic()
        # Who comes while another looks goes on with what is known, unless nobody has looked for longer than that takes:
        # to a process that was idle two alerts come at once, and neither may go by what was in force an hour ago.
        is_old = now >= self._look_at + READ_BOUND_S
        if now >= self._look_at and self._lock.acquire(timeout=WAIT_S if is_old else 0):
            try:
                if self._clock.monotonic() >= self._look_at:
                    self._look()
            except StoreUnavailable:
                self._look_at = self._clock.monotonic() + KEEP_S
            finally:
                self._lock.release()
        return self._known

    def __call__(self) -> InForce:
        """The same for whoever places orders. Raises StoreUnavailable until a first read has succeeded: what the
        operator has tightened must not be missed by an instance that has just started.
        """
        if self._seen < 0:
            bound = READ_BOUND_S * 4
            if not self._lock.acquire(timeout=bound):
                raise StoreUnavailable("the runtime configuration is being read")
            try:
                if self._seen < 0:
                    self._look()
            finally:
                self._lock.release()
        return self.known()

    def _look(self) -> None:
        began = self._clock.monotonic()
        found = self.store.newer(self._scope, self._seen, Deadline(began + READ_BOUND_S))
        if found is not None:
            self._take(found)
        self._seen = max(self._seen, 0)
        self._look_at = began + KEEP_S  # from before the read: what was written meanwhile may not be in it

    def _take(self, version: Version) -> None:
        try:
            self._known = self._of(version, document_of(version.document))
        except (InvalidAlert, ValueError) as error:
            self._wrong(version, error)
        self._seen = version.number

    def _wrong(self, version: Version, error: Exception) -> None:
        """Made by another version of this service. The last known good stays, but for the flags: what is switched off is
        off at once. Without a last one, what can be read of it.
        """
        self._notifier.notify("config_invalid", f"configuration version {version.number}: {error}", page=True)
        found = readable_of(version.document)
        if self._seen > 0:
            document = self._known.document
            flags = {**document.flags, **found.flags}
            self._known = self._of(self._known.version, replace(document, flags=flags))
            return
        good: dict[str, str] = {}
        for name, value in found.settings.items():
            try:
                self.rules.effective({**good, name: value})
            except InvalidAlert:
                continue
            good[name] = value
        self._known = self._of(version, replace(found, settings=good))

    def _of(self, version: Version, document: Document) -> InForce:
        effective = self.rules.effective(document.settings)
        policy = replace(effective.policy, rollout=document.rollout())
        return InForce(version, document, effective, policy)

    def change(self, by: str, reason: str, edit: Callable[[Document], Document]) -> Done:
        """A new version from the newest. Raises InvalidAlert by the wrong fields, and KeyInUse."""

        def edited(newest: Version) -> Raw:
            try:
                old = document_of(newest.document)
            except ValueError as error:
                raise InvalidAlert(
                    (FieldError("version", f"{newest.number} cannot be read: {error}"),)
                ) from None
            new = edit(old)
            self._check(new)
            return raw_of(new)

        return self._append(by, reason, edited)

    def rollback(self, by: str, reason: str, to: int) -> Done:
        """A new version that is as `to` was (0: all as the environment says). Raises NotFound."""
        found = FIRST if to == 0 else self.store.version(self._scope, to)
        if found is None:
            raise NotFound(f"there is no version {to}")
        document = found.document
        try:
            self._check(document_of(document))
        except ValueError as error:
            raise InvalidAlert((FieldError("version", f"{to} cannot be read: {error}"),)) from None
        return self._append(by, reason, lambda _: document)

    def history(self, limit: int) -> tuple[Version, ...]:
        return self.store.history(self._scope, limit)

    def _append(self, by: str, reason: str, edit: Callable[[Version], Raw]) -> Done:
        for _ in range(TRIES):
            newest = self.store.newer(self._scope, 0) or FIRST
            document = edit(newest)
            self._keep_variants(newest, document)
            changes = self._changes(newest.document, document)
            if not changes:
                return Done(newest, changed=False)
            new = Version(newest.number + 1, self._clock.now(), by, reason, document, changes)
            made = self.store.append(self._scope, new)
            if made is not None:
                with self._lock:
                    if made.number > self._seen:
                        self._take(made)
                return Done(made, changed=True)
        raise KeyInUse("the configuration is being changed by others: try again", retry_after_s=1)

    def _check(self, document: Document) -> None:
        unknown = sorted(set(document.settings) - set(self.rules.names))
        errors = [FieldError(n, "expected a setting that can be changed while running") for n in unknown]
        errors += [
            FieldError(name, f"expected one of the flags {', '.join(FLAGS)}")
            for name in sorted(set(document.flags) - set(FLAGS))
        ]
        if errors:
            raise InvalidAlert(tuple(errors))
        self.rules.effective(document.settings)
        for experiment in document.experiments.values():
            for variant in experiment.variants:
                self._check_variant(document.settings, variant)
        both = first_overlap(document.experiments.values())
        if both is not None:
            words = f"{both[0].name} and {both[1].name} would both run over the same strategies"
            raise InvalidAlert((FieldError("strategies", words),))

    def _keep_variants(self, newest: Version, raw: Raw) -> None:
        """One name, one set of variants, for ever: orders carry the name alone, and the report would merge those of
        all sets that it has had. The newest version is not enough to look at, for a rollback takes experiments away.
        """
        new = [
            e
            for e in document_of(raw).experiments.values()
            if variants_in(newest.document, e.name) != e.variants
        ]
        past = self.store.history(self._scope, newest.number) if new else ()
        for experiment in new:
            had = (variants_in(version.document, experiment.name) for version in past)
            if any(v is not None and v != experiment.variants for v in had):
                words = f"{experiment.name} has had other variants: choose another name"
                raise InvalidAlert((FieldError("variants", words),))

    def _check_variant(self, settings: Mapping[str, str], variant: Variant) -> None:
        """A variant's percents obey the same rules as the settings that they stand for."""
        given = {"SL_PERCENT": variant.sl_percent, "TP_PERCENT": variant.tp_percent}
        try:
            self.rules.effective({**settings, **{n: str(v) for n, v in given.items() if v is not None}})
        except InvalidAlert as error:
            errors = tuple(
                FieldError(f"{e.field.lower()} of variant {variant.name}", e.message) for e in error.errors
            )
            raise InvalidAlert(errors) from None

    def _changes(self, old: Raw, new: Raw) -> tuple[Change, ...]:
        base = self.rules.effective({}).values
        before, after = (flat(raw) for raw in (old, new))
        found = []
        for name in sorted(before.keys() | after.keys()):
            one, other = before.get(name), after.get(name)
            if one != other:
                usual = base.get(name, "")
                found.append(Change(name, usual if one is None else one, usual if other is None else other))
        return tuple(found)
