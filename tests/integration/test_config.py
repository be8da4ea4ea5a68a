"""The runtime configuration over the real databases: three instances, versions, and who may not overwrite whom."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.domain.experiment import Experiment, Flag, Variant
from app.domain.order import OrderKind
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.runtime import SettingsRules
from app.service.config import Config
from app.service.config_document import stopped, with_experiment, with_flag, with_settings
from app.service.experiments import report
from app.settings import Settings
from app.store.engine import Database
from app.store.sql import SqlStore
from app.store.sql_config import SqlConfig
from app.wiring import FirstUse, Parts
from tests.fakes import FakeBroker, FakeContracts, FakeNotifier
from tests.integration.store_rows import LIVE, NOON, SCOPE, Clock, insert, key, order

CAP = "RISK_MAX_OPEN_LOTS"
TRIAL = Experiment(
    "stops",
    (Variant("usual"), Variant("wide", 3, Decimal(30), Decimal("40.5"), OrderKind.LIMIT)),
    frozenset({"orb"}),
)


class Instance:
    """One process: its own connections, its own view, its own desk."""

    def __init__(self, url: str, clock: Clock, directory: Path) -> None:
        self.database = Database(url, clock)
        settings = Settings.model_validate({"instance_dir": directory})
        store = SqlStore(self.database, clock)
        self.notifier = FakeNotifier()
        self.stored = SqlConfig(self.database)
        self.config = Config(self.stored, SCOPE, clock, SettingsRules(settings), self.notifier)
        broker = FakeBroker(clock)  # type: ignore[arg-type] # never asked for a time here
        parts = Parts(store, broker, FakeContracts([]), clock, SCOPE, self.notifier)
        self.desk = FirstUse(settings, self.config, parts)

    @property
    def cap(self) -> int | None:
        return self.desk().policy.limits.max_open_lots


@pytest.fixture
def three(database_url: str, clock: Clock, tmp_path: Path) -> Iterator[list[Instance]]:
    made = [Instance(database_url, clock, tmp_path) for _ in range(3)]
    yield made
    for one in made:
        one.database.close()


def test_a_changed_cap_is_in_force_on_three_instances_within_a_second(
    three: list[Instance], clock: Clock
) -> None:
    assert [i.cap for i in three] == [50, 50, 50]
    clock.pass_(0.2)
    assert [i.cap for i in three] == [50, 50, 50]
    changed_at = clock.now()
    three[0].config.change("api:admin", "a calm day", with_settings({CAP: "7", "SL_PERCENT": "12"}))
    assert three[0].cap == 7
    clock.pass_(0.999)
    assert [i.cap for i in three] == [7, 7, 7]
    assert [i.desk().policy.sl_percent for i in three] == [12, 12, 12]
    (kept,) = three[1].config.history(9)
    assert (kept.number, kept.by, kept.reason, kept.at) == (1, "api:admin", "a calm day", changed_at)
    assert [(c.name, c.old, c.new) for c in kept.changes] == [(CAP, "50", "7"), ("SL_PERCENT", "15", "12")]

    three[2].config.change("cli:me", "wild", with_settings({CAP: ""}))
    clock.pass_(0.999)
    assert [i.cap for i in three] == [None, None, None], "off, as an empty value in the environment"
    done = three[1].config.rollback("cli:me", "calm again", 1)
    assert (done.version.number, done.version.changes[0].new) == (3, "7")
    clock.pass_(0.999)
    assert [i.cap for i in three] == [7, 7, 7]
    three[0].config.rollback("cli:me", "as it was", 0)
    clock.pass_(0.999)
    assert [i.cap for i in three] == [50, 50, 50]
    prefixes = {i.desk().policy.tag_prefix for i in three}
    assert len(prefixes) == 1
    assert prefixes != {""}


def test_a_new_instance_goes_by_what_is_stored_and_not_by_the_environment(
    three: list[Instance], database_url: str, clock: Clock, tmp_path: Path
) -> None:
    three[0].config.change("me", "less", with_settings({CAP: "3"}))
    late = Instance(database_url, clock, tmp_path)
    assert late.cap == 3
    late.database.close()


def test_real_money_and_paper_have_versions_of_their_own(three: list[Instance]) -> None:
    three[0].config.change("me", "less", with_settings({CAP: "3"}))
    assert three[1].stored.newer(LIVE, 0) is None
    assert three[1].stored.newer(SCOPE, 0) is not None


def test_changes_at_once_get_different_versions_and_none_is_lost(three: list[Instance]) -> None:
    def change(number: int) -> int:
        name = ("RISK_MAX_ORDERS_PER_MINUTE", "RISK_MAX_ORDERS_PER_HOUR", CAP)[number % 3]
        one = three[number % 3].config
        return one.change("me", "at once", with_settings({name: str(1000 + number)})).version.number

    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(change, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    newest = three[0].stored.newer(SCOPE, 0)
    assert newest is not None
    assert len(newest.document["settings"]) == 3


def test_nobody_can_change_what_has_been(three: list[Instance]) -> None:
    three[0].config.change("me", "less", with_settings({CAP: "3"}))
    for words in ("UPDATE config_versions SET reason = 'x'", "DELETE FROM config_versions"):
        with (
            pytest.raises((DBAPIError, StoreUnavailable)),
            three[0].database.write() as connection,
        ):
            connection.execute(text(words))
    (kept,) = three[0].config.history(9)
    assert kept.reason == "less"


def test_flags_and_experiments_come_back_as_they_went_in(three: list[Instance], clock: Clock) -> None:
    here, there = three[0].config, three[1].config
    here.change("me", "try", with_experiment(TRIAL))
    here.change("me", "try", with_flag("entries", Flag(40, {"orb": True})))
    clock.pass_(1)
    document = there().document
    assert document.experiments == {"stops": TRIAL}
    assert document.flags == {"entries": Flag(40, {"orb": True})}
    assert three[2].desk().policy.rollout.experiments == (TRIAL,)
    here.change("me", "enough", stopped("stops"))
    clock.pass_(1)
    assert three[2].desk().policy.rollout.experiments == ()


def test_an_order_keeps_its_variant_and_the_report_finds_it(three: list[Instance], clock: Clock) -> None:
    store = three[0].desk().store
    assert isinstance(store, SqlStore)
    tried = order("A", kind=OrderKind.LIMIT, limit_price=Decimal("142.40"), variant="stops/wide")
    filled = {"status": Status.FILLED, "filled_quantity": 75, "fill_price": Decimal("142.40")}
    with store.write() as tx:
        tx.adjust_holding(SCOPE, "other", tried.ticker, tried.product, 75, "not ours")
    insert(store, replace(tried, **filled), order("B", key=key("d2")))  # type: ignore[arg-type]
    with store.read() as tx:
        found = tx.get_order(SCOPE, "A")
    assert found is not None
    assert (found.kind, found.limit_price, found.variant) == (tried.kind, tried.limit_price, tried.variant)
    trials = three[1].stored.trials(SCOPE, TRIAL)
    assert [o.id for o in trials.entries] == ["A"]
    assert [(a.client, a.delta, a.at) for a in trials.adjusted] == [("other", 75, NOON)]
    usual, wide = report(TRIAL, trials)
    assert (usual.orders, wide.orders, wide.filled, wide.still_open) == (0, 1, 1, 1)


def test_preferences_are_each_client_s_own(three: list[Instance]) -> None:
    three[0].stored.set_preferences("one", {"time_zone": "UTC"})
    three[0].stored.set_preferences("two", {"columns": ["state"]})
    three[1].stored.set_preferences("one", {"time_zone": "Asia/Kolkata"})
    assert three[2].stored.preferences("one") == {"time_zone": "Asia/Kolkata"}
    assert three[2].stored.preferences("two") == {"columns": ["state"]}
    assert three[2].stored.preferences("three") is None
