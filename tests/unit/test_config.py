"""One instance's view of the configuration: what is refused, and what holds when it cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.domain.deadline import Deadline
from app.domain.experiment import Experiment, Flag, Variant
from app.domain.limits import Runaway
from app.domain.order import Scope
from app.errors import InvalidAlert, KeyInUse, NotFound, StoreUnavailable
from app.runtime import RUNTIME, SettingsRules
from app.service.config import FIRST, KEEP_S, READ_BOUND_S, TRIES, Config, Version
from app.service.config_document import (
    Document,
    raw_of,
    stopped,
    with_experiment,
    with_flag,
    with_settings,
)
from app.settings import Settings
from tests.builders import NOW, SCOPE
from tests.fake_config import FakeConfigStore
from tests.fakes import FakeClock, FakeNotifier

CAP = "RISK_MAX_OPEN_LOTS"
PAIR = (Variant("usual"), Variant("wide", sl_percent=Decimal(30)))


class View:
    def __init__(self, directory: Path, **settings: Any) -> None:
        self.clock, self.notifier = FakeClock(), FakeNotifier()
        self.store: FakeConfigStore = FakeConfigStore(self.clock)
        self.rules = SettingsRules(Settings.model_validate({"instance_dir": directory, **settings}))
        self.config = self.another()

    def another(self) -> Config:
        return Config(self.store, SCOPE, self.clock, self.rules, self.notifier)

    def set(self, **values: str | None) -> Version:
        return self.config.change("me", "to see", with_settings(values)).version

    def stored(self, document: Mapping[str, Any]) -> None:
        """Written by somebody else, whatever it is."""
        number = len(self.store.versions) + 1
        self.store.versions.append(Version(number, NOW, "other", "", document, ()))
        self.clock.advance(KEEP_S)

    def refused(self, **values: str | None) -> dict[str, str]:
        with pytest.raises(InvalidAlert) as caught:
            self.set(**values)
        assert self.config.history(99) == ()
        return {e.field: e.message for e in caught.value.errors}


@pytest.fixture
def view(tmp_path: Path) -> View:
    return View(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (CAP, "0"),
        (CAP, "many"),
        ("WEBHOOK_MAX_QTY", "-3"),
        ("SL_PERCENT", "100"),
        ("SL_PERCENT", "NaN"),
        ("SL_PERCENT", ""),
        ("DEDUPE_WINDOW_SECONDS", "60"),
        ("RISK_RUNAWAY", "30"),
        ("RISK_INTRADAY_CUTOFF", "noon"),
        ("QTY_CAPS", '{"NIFTY:SHARES": 1}'),
        ("RATE_LIMIT_WEBHOOK", "often"),
        ("IP_ALLOWLIST", "10.0.0.0/99"),
        ("IP_ALLOWLIST", ""),
        ("IP_ALLOWLIST", ","),
        ("RISK_SYMBOLS", " , "),
        ("RISK_SYMBOLS", " "),
        (CAP, " "),
        ("RISK_MAX_ORDERS_PER_DAY", "99999999999999999999"),
        ("RISK_RUNAWAY", "99/99999999999999s"),
        ("TP_PERCENT", "1e30"),
        ("RISK_SYMBOLS", "sm://projects/p/secrets/s/versions/1"),
        ("ADMIN_TOKEN", "x"),
        ("NOSUCH", "x"),
    ],
)
def test_an_illegal_value_is_refused_by_its_name(view: View, name: str, value: str) -> None:
    assert list(view.refused(**{name: value})) == [name]


def test_all_that_is_wrong_is_said_at_once_and_nothing_of_it_is_kept(view: View) -> None:
    assert set(view.refused(RISK_MAX_OPEN_LOTS="x", SL_PERCENT="0", TP_PERCENT="30")) == {CAP, "SL_PERCENT"}
    assert view.config().policy.tp_percent == 25


def test_values_are_read_as_the_environment_s(view: View) -> None:
    view.set(
        RISK_RUNAWAY="5/10s",
        RISK_SYMBOLS="nifty, BankNifty",
        RISK_MAX_SIGNAL_AGE_SECONDS="",
        QTY_CAPS='{"nifty": 2}',
        WEBHOOK_MAX_QTY="4",
        ENFORCE_MARKET_HOURS="true",
    )
    limits = view.config().policy.limits
    assert (limits.runaway, limits.max_lots) == (Runaway(5, 10), 4)
    assert limits.symbols == frozenset({"NIFTY", "BANKNIFTY"})
    assert limits.qty_caps == {"NIFTY": 2}
    assert (limits.max_signal_age_s, limits.enforce_hours) == (None, True)


def test_what_is_in_force_can_be_set_as_it_is_shown(view: View) -> None:
    shown = view.config().effective.values
    assert set(shown) == {n.upper() for n in RUNTIME}
    again = {n: v for n, v in shown.items() if n != "IP_ALLOWLIST"}  # empty is no value there
    view.config.change("me", "to see", with_settings(again))
    assert view.config().effective.values == shown


def test_the_rest_of_a_live_service_s_settings_stands(tmp_path: Path) -> None:
    """The whole set is checked with each change, so that every setting must survive being handed over again."""
    settings = Settings.model_validate(
        {
            "instance_dir": tmp_path,
            "trading_mode": "live",
            "fyers_app_id": "XY1-200",
            "fyers_access_token": "given",
            "webhook_hmac_secrets": "whsec_" + "A" * 32,
            "token_encryption_keys": "A" * 43 + "=",
            "symbol_master_files": "NSE_FO,BSE_FO",
            "rate_limit_webhook": "10 per minute; 2 per second",
            "cors_origins": "https://desk.example",
            "qty_caps": '{"NIFTY": 2}',
            "risk_symbols": "NIFTY",
            "risk_runaway": "9/30s",
            "risk_max_open_lots": "",
            "risk_expiry_cutoff": "14:30",
        }
    )
    made = SettingsRules(settings).settings({"SL_PERCENT": "9"})
    assert made.sl_percent == 9
    assert made.model_dump(exclude={"sl_percent"}) == settings.model_dump(exclude={"sl_percent"})


def test_the_environment_s_value_comes_back_with_none(tmp_path: Path) -> None:
    view = View(tmp_path, sl_percent="11")
    assert [(c.old, c.new) for c in view.set(SL_PERCENT="12").changes] == [("11", "12")]
    assert [(c.old, c.new) for c in view.set(SL_PERCENT=None).changes] == [("12", "11")]
    assert view.config().policy.sl_percent == 11


def test_an_unreadable_configuration_leaves_the_last_known_in_force(view: View) -> None:
    view.set(RISK_MAX_OPEN_LOTS="3")
    view.store.down = True
    for _ in range(5):
        view.clock.advance(60)
        assert view.config().policy.limits.max_open_lots == 3
    with pytest.raises(StoreUnavailable):
        view.set(RISK_MAX_OPEN_LOTS="9")
    assert view.config().policy.limits.max_open_lots == 3
    view.store.down = False
    view.clock.advance(KEEP_S)
    view.stored({"settings": {CAP: "4"}})
    assert view.config().policy.limits.max_open_lots == 4


def test_until_a_first_read_nobody_enters_by_the_environment_s_wider_limit(view: View) -> None:
    view.set(RISK_MAX_OPEN_LOTS="3")
    view.store.down = True
    fresh = view.another()
    with pytest.raises(StoreUnavailable):
        fresh()
    assert fresh.known().version is FIRST, "what is asked before the database is up goes by the environment"
    assert fresh.known().effective.values[CAP] == "50"
    view.store.down = False
    assert fresh().policy.limits.max_open_lots == 3


def test_the_database_is_asked_twice_a_second_at_most(view: View) -> None:
    view.config()
    view.store.reads = 0
    for _ in range(100):
        view.config()
        view.clock.advance(0.01)
    assert view.store.reads <= 2
    view.store.down = True
    view.clock.advance(1)
    view.config()
    view.store.down, view.store.reads = False, 0
    view.config()
    assert view.store.reads == 0, "one that failed is not tried again at once"


class Slow(FakeConfigStore):
    """Its reads wait, once they are told to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked, self.free = threading.Event(), threading.Event()
        self.free.set()

    def newer(self, scope: Scope, than: int, deadline: Deadline | None = None) -> Version | None:
        self.asked.set()
        assert self.free.wait(5)
        return super().newer(scope, than, deadline)


def caps_of_two(view: View, idle_s: float) -> list[int | None]:
    """What two alerts go by that come at the same moment, so many seconds after the last one; 50 is what was."""
    view.store = slow = Slow(view.clock)
    view.config = view.another()
    assert view.config().policy.limits.max_open_lots == 50
    view.stored({"settings": {CAP: "3"}})
    view.clock.advance(idle_s - KEEP_S)
    slow.asked.clear()
    slow.free.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(view.config)
        assert slow.asked.wait(5)
        second = pool.submit(view.config)
        done, _ = wait([second], timeout=0.05)
        slow.free.set()
        both = [each.result(5).policy.limits.max_open_lots for each in (first, second)]
    assert bool(done) is (both == [3, 50])
    return both


def test_alerts_that_come_at_once_to_an_idle_instance_all_go_by_what_is_in_force(view: View) -> None:
    assert caps_of_two(view, 3600) == [3, 3]


def test_a_look_that_is_in_time_holds_up_nobody_else(view: View) -> None:
    assert caps_of_two(view, KEEP_S + READ_BOUND_S / 2) == [3, 50]


def test_what_another_version_wrote_wrongly_keeps_the_last_good_and_pages_once(view: View) -> None:
    view.set(RISK_MAX_OPEN_LOTS="3")
    view.stored({"settings": {CAP: "none", "SL_PERCENT": "9"}})
    for _ in range(3):
        assert view.config().policy.limits.max_open_lots == 3
        view.clock.advance(1)
    assert view.config().policy.sl_percent == 15
    assert view.notifier.pages == ["config_invalid"]


def test_a_start_on_a_wrong_document_takes_what_is_right_in_it(view: View) -> None:
    view.stored(
        {"settings": {CAP: "3", "SL_PERCENT": "900"}, "flags": {"entries": {"percent": 7, "strategies": {}}}}
    )
    found = view.another()()
    assert found.policy.limits.max_open_lots == 3
    assert found.policy.sl_percent == 15
    assert found.policy.rollout.entries.percent == 7
    view.stored({"settings": {CAP: "2"}, "experiments": {"x": {}}})
    assert view.another()().policy.limits.max_open_lots == 2
    assert view.notifier.pages == ["config_invalid"] * 2


UNREADABLE: dict[str, Any] = {"experiments": {"x": {}}}
SHUT = {"percent": 0, "strategies": {"orb": False}}


def at_start(view: View) -> Config:
    return view.another()


def running(view: View) -> Config:
    """It has a last known good, in which every flag is open."""
    view.config()
    return view.config


@pytest.mark.parametrize("instance", [at_start, running])
@pytest.mark.parametrize("settings", [{}, {CAP: "none"}, "none"])
def test_experiments_and_settings_that_cannot_be_read_open_no_flag(
    view: View, instance: Callable[[View], Config], settings: Any
) -> None:
    view.set(RISK_MAX_OPEN_LOTS="3")
    config = instance(view)
    view.stored({"settings": settings, "flags": {"entries": SHUT}, **UNREADABLE})
    rollout = config().policy.rollout
    assert (rollout.entries, rollout.experiments) == (Flag(0, {"orb": False}), ())
    assert view.notifier.pages == ["config_invalid"]
    if instance is running:
        view.stored(UNREADABLE)
        assert config().policy.rollout.entries == Flag(0, {"orb": False}), "nothing says that it is open"
    view.stored({"flags": {"entries": {"percent": 100, "strategies": {}}}})
    assert config().policy.rollout.denial("orb") is None


@pytest.mark.parametrize("instance", [at_start, running])
@pytest.mark.parametrize(
    "flags",
    [
        {"entries": None},
        {"entries": {"percent": "none", "strategies": {}}},
        {"entries": {"percent": 100, "strategies": {"orb": "off"}}},
        {"entries": {"percent": 100, "strategies": {}, "until": "15:00"}},
        {"entries": {"on": []}},
        "none",
        [],
    ],
)
def test_a_flag_that_cannot_be_read_is_closed(
    view: View, instance: Callable[[View], Config], flags: Any
) -> None:
    view.set(RISK_MAX_OPEN_LOTS="3")
    config = instance(view)
    view.stored({"settings": {CAP: "4"}, "flags": flags})
    denial = config().policy.rollout.denial("orb")
    assert denial is not None
    assert denial.code == "entries_off"
    assert view.notifier.pages == ["config_invalid"]


def test_an_experiment_that_can_be_read_runs_beside_one_that_cannot(view: View) -> None:
    view.stored({"experiments": {"x": {}, **raw_of(Document(experiments={"stops": STOPS}))["experiments"]}})
    rollout = view.another()().policy.rollout
    assert (rollout.experiments, rollout.entries) == ((STOPS,), Flag())


def test_a_change_that_was_overtaken_is_made_again_from_the_newest(view: View) -> None:
    view.store.quicker = 3
    assert view.set(RISK_MAX_OPEN_LOTS="3").number == 4
    assert [v.number for v in view.config.history(9)] == [4, 3, 2, 1]
    view.store.quicker = TRIES
    with pytest.raises(KeyInUse):
        view.set(RISK_MAX_OPEN_LOTS="5")
    assert view.set(RISK_MAX_OPEN_LOTS="5").number == 4 + TRIES + 1


def test_a_rollback_is_checked_by_the_rules_of_today(tmp_path: Path) -> None:
    view = View(tmp_path)
    view.stored({"settings": {"SL_PERCENT": "900"}})
    view.stored({})
    with pytest.raises(InvalidAlert, match="SL_PERCENT"):
        view.config.rollback("me", "back", 1)
    with pytest.raises(NotFound):
        view.config.rollback("me", "back", 7)
    assert len(view.store.versions) == 2


def test_an_experiment_s_percents_obey_the_settings_rules(view: View) -> None:
    wrong = Experiment("stops", (Variant("usual"), Variant("wide", sl_percent=Decimal(100))))
    with pytest.raises(InvalidAlert, match="sl_percent of variant wide"):
        view.config.change("me", "try", with_experiment(wrong))
    assert view.store.versions == []


def test_an_experiment_keeps_its_variants_and_does_not_overlap(view: View) -> None:
    change = view.config.change
    change("me", "try", with_experiment(Experiment("stops", PAIR, frozenset({"orb"}))))
    with pytest.raises(InvalidAlert, match="other variants"):
        change("me", "try", with_experiment(Experiment("stops", PAIR[::-1], frozenset({"orb"}))))
    with pytest.raises(InvalidAlert, match="same strategies"):
        change("me", "try", with_experiment(Experiment("more", PAIR)))
    change("me", "enough", stopped("stops"))
    change("me", "try", with_experiment(Experiment("more", PAIR)))
    assert [e.name for e in view.config().policy.rollout.experiments] == ["more"]
    with pytest.raises(NotFound):
        change("me", "enough", stopped("nosuch"))
    with pytest.raises(InvalidAlert, match="nosuch"):
        change("me", "try", with_flag("nosuch", Flag()))


STOPS = Experiment("stops", PAIR, frozenset({"orb"}))
OTHER_STOPS = Experiment("stops", (Variant("usual"), Variant("wide", sl_percent=Decimal(50))))


def variants_refused(act: Callable[[], object]) -> None:
    with pytest.raises(InvalidAlert) as caught:
        act()
    (error,) = caught.value.errors
    assert (error.field, error.message) == ("variants", "stops has had other variants: choose another name")


def test_a_name_keeps_its_variants_also_after_a_rollback_took_it_away(view: View) -> None:
    """Orders carry the name alone: the report would merge those of 30 and of 50 percent."""
    change = view.config.change
    change("me", "try", with_experiment(STOPS))
    view.config.rollback("me", "back", 0)
    assert view.config().document.experiments == {}
    view.set(RISK_MAX_OPEN_LOTS="3")
    variants_refused(lambda: change("me", "again", with_experiment(OTHER_STOPS)))
    assert len(view.store.versions) == 3
    same = Experiment("stops", (Variant("usual"), Variant("wide", sl_percent=Decimal("30.0"))))
    change("me", "again", with_experiment(same))
    view.config.rollback("me", "as at first", 1)
    assert view.config().document.experiments == {"stops": STOPS}


def test_a_rollback_brings_no_other_variants_back_under_a_later_name(view: View) -> None:
    """As databases have it from before this was refused; and whatever is in force there can still be stopped."""
    for one in (STOPS, OTHER_STOPS):
        view.stored(raw_of(Document(experiments={"stops": one})))
    variants_refused(lambda: view.config.rollback("me", "back", 1))
    view.set(RISK_MAX_OPEN_LOTS="3")
    view.config.change("me", "enough", stopped("stops"))
    assert view.config().policy.rollout.experiments == ()
    view.config.rollback("me", "back", 0)
    variants_refused(lambda: view.config.change("me", "again", with_experiment(STOPS)))
    variants_refused(lambda: view.config.change("me", "again", with_experiment(OTHER_STOPS)))


def test_variants_that_cannot_be_read_are_other_ones(view: View) -> None:
    view.stored({"experiments": {"stops": {}}})
    view.stored({"experiments": "none"})
    view.stored({})
    variants_refused(lambda: view.config.change("me", "try", with_experiment(STOPS)))
    view.config.change("me", "try", with_experiment(replace(STOPS, name="stops-2")))


def test_two_who_begin_one_name_at_once_do_not_both_have_it(view: View) -> None:
    """The quicker one's version is looked at too: it came after the look at the newest, and before the write."""
    first, append = view.another(), view.store.append
    calls = 0

    def overtaken(scope: Scope, version: Version) -> Version | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            first.change("other", "try", with_experiment(OTHER_STOPS))
            first.rollback("other", "back", 0)
        return append(scope, version)

    view.store.append = overtaken  # type: ignore[method-assign]
    variants_refused(lambda: view.config.change("me", "try", with_experiment(STOPS)))
