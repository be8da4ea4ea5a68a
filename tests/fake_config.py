"""A working memory of configuration versions and preferences, for the tests that need no database."""

from __future__ import annotations

from dataclasses import replace

from app.domain.deadline import Deadline
from app.domain.experiment import Experiment
from app.domain.order import Scope
from app.errors import StoreUnavailable
from app.service.config import Version
from app.service.config_document import Raw
from app.service.experiments import Trials
from app.service.ports import Clock


class FakeConfigStore:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.versions: list[Version] = []
        self.preferred: dict[str, Raw] = {}
        self.found = Trials((), (), ())
        self.down = False
        self.reads = 0
        self.quicker = 0
        """So many changes of others come in between."""

    def newer(self, scope: Scope, than: int, deadline: Deadline | None = None) -> Version | None:
        self._up()
        self.reads += 1
        return self.versions[-1] if len(self.versions) > max(than, 0) else None

    def version(self, scope: Scope, number: int) -> Version | None:
        self._up()
        return next((v for v in self.versions if v.number == number), None)

    def history(self, scope: Scope, limit: int) -> tuple[Version, ...]:
        self._up()
        return tuple(reversed(self.versions))[:limit]

    def append(self, scope: Scope, version: Version) -> Version | None:
        self._up()
        if self.quicker:
            self.quicker -= 1
            kept = self.versions[-1].document if self.versions else {}
            other = replace(version, by="other", number=len(self.versions) + 1, document=kept, changes=())
            self.versions.append(other)
        if version.number != len(self.versions) + 1:
            return None
        self.versions.append(replace(version, at=self.clock.now()))
        return self.versions[-1]

    def preferences(self, client: str) -> Raw | None:
        self._up()
        return self.preferred.get(client)

    def set_preferences(self, client: str, value: Raw) -> None:
        self._up()
        self.preferred[client] = value

    def trials(self, scope: Scope, experiment: Experiment) -> Trials:
        self._up()
        return self.found

    def _up(self) -> None:
        if self.down:
            raise StoreUnavailable("the database is down")
