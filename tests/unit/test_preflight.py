"""`preflight` in live mode against the simulated broker, each fault by itself; and on paper as a newcomer runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.brokers.fyers.not_allowed import explained, seen_address
from app.brokers.guard import guarded
from app.brokers.guard.lookout import Lookout
from app.cli.preflight import as_text
from app.domain.alert import IST
from app.domain.deadline import Deadline
from app.domain.outcome import Refused
from app.domain.risk import TradingState
from app.jobs import preflight as preflight_job
from app.jobs.run import JOBS, Scheduler
from app.preflight import preflight
from app.preflight.broker import BrokerLook
from app.refresh import refresh
from app.service.config_document import with_settings
from app.service.control import Control
from app.service.preflight import Light, Preflight
from app.settings import Settings
from app.store.migrate import upgrade
from app.web.ports import Ports
from app.wiring import build
from tests.fakes import FakeBroker, FakeClock
from tests.fyers_sim import FyersSim, SimClock
from tests.guard_desk import LOST, TICKET
from tests.redis_server import RedisServer
from tests.unit.master_server import MasterServer, serving
from tests.unit.operator_desk import Operator

MORNING = datetime(2026, 9, 9, 3, 20, tzinfo=UTC)
"""Wednesday, 08:50 IST."""


class At:
    """A wall clock that stands; deadlines go by real seconds."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        import time

        return time.monotonic()


@pytest.fixture
def sim() -> Iterator[FyersSim]:
    with FyersSim(clock=SimClock(MORNING)) as running:
        running.market_open = False
        yield running


@pytest.fixture
def web() -> Iterator[MasterServer]:
    """Tells the caller's address, and answers with a Date header, which the simulator does not."""
    with serving() as running:
        running.files["ip"] = b"203.0.113.7\n"
        yield running


class Told:
    """A notifier that keeps what it was given."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, bool]] = []

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        self.told.append((code, message, page))


class Live:
    """A service in live mode whose every condition is good; `changes` are settings that make one bad."""

    def __init__(self, directory: Path, sim: FyersSim, web: MasterServer) -> None:
        self._given: dict[str, Any] = {
            "trading_mode": "live",
            "fyers_app_id": "SIMAPP-200",
            "fyers_access_token": "t",
            "fyers_api_url": sim.base_url,
            "fyers_data_url": sim.data_url,
            "symbol_master_url": sim.master_url,
            "preflight_ip_url": f"{web.url}/ip",
            "instance_dir": directory,
        }
        self.clock, self.notifier = At(MORNING), Told()

    def ports(self, *, migrated: bool = True, master: bool = True, **changes: Any) -> Ports:
        settings = Settings(_env_file=None, **(self._given | changes))  # type: ignore[call-arg]
        if migrated:
            upgrade(settings.url)
        if master:
            refresh(settings, now=MORNING)
        return replace(build(settings), clock=self.clock, notifier=self.notifier)


@pytest.fixture
def live(tmp_path: Path, sim: FyersSim, web: MasterServer) -> Live:
    return Live(tmp_path, sim, web)


def lights(found: Preflight) -> dict[str, Light]:
    return {f.name: f.light for f in found.findings}


def said(found: Preflight, name: str) -> str:
    (finding,) = (f for f in found.findings if f.name == name)
    return finding.said


def bad(found: Preflight) -> list[str]:
    return [f.name for f in found.bad]


def test_all_is_well(live: Live) -> None:
    found = preflight(live.ports())
    assert found.is_ready
    assert {n for n, light in lights(found).items() if light is not Light.OK} == {"clock", "redis"}
    assert "NIFTY's next expiry is Tue 15 Sep 2026" in said(found, "contracts")
    assert "1,000,000.00 rupees are available" in said(found, "funds")
    assert "203.0.113.7" in said(found, "address")
    assert said(found, "login") == "logged in; the token ends Thu 10 Sep 06:00 IST"
    assert as_text(found).endswith(
        "READY for the next session: the exchange does not trade now, and nothing else keeps an order back."
    )


@pytest.mark.parametrize(
    ("changes", "names", "words"),
    [
        ({"fyers_access_token": "wrong"}, ["funds"], "401, code -16"),
        ({"fyers_app_id": "SIMAPP-100"}, ["Fyers app"], "ends in -100"),
        ({"fyers_api_url": "http://127.0.0.1:1/api/v3"}, ["funds"], "does not answer"),
        ({"master": False}, ["contracts"], "no contract index"),
        ({"migrated": False}, ["database"], "there is none yet"),
    ],
    ids=["token refused", "old app", "broker down", "no master", "no database"],
)
def test_each_fault_is_named_alone_with_what_to_do(
    live: Live, changes: dict[str, Any], names: list[str], words: str
) -> None:
    found = preflight(live.ports(**changes))
    assert bad(found) == names
    assert words in said(found, names[0])
    assert all(f.mend for f in found.bad)
    assert as_text(found).splitlines()[-1].startswith("NOT READY")


def test_without_a_login_only_that_is_named(live: Live) -> None:
    ports = live.ports(fyers_access_token="", fyers_secret_id="s", token_encryption_keys="x" * 43 + "=")
    found = preflight(ports)
    assert bad(found) == ["login"]
    assert "flask --app app.wsgi login" in as_text(found)


def test_a_token_that_ends_before_the_session_is_noted(live: Live) -> None:
    live.clock.moment = datetime(2026, 9, 9, 4, 50, tzinfo=IST)
    found = preflight(live.ports())
    assert lights(found)["login"] is Light.NOTE
    assert "ends Wed 09 Sep 06:00 IST: log in again" in said(found, "login")
    assert "READY for the next session" in as_text(found).splitlines()[-1]
    assert "after what is noted at: login" in as_text(found).splitlines()[-1]


def test_an_old_master_is_named_and_with_one_fresh_file_only_noted(live: Live, sim: FyersSim) -> None:
    ports = live.ports()
    live.clock.moment = MORNING + timedelta(days=1)
    found = preflight(ports)
    assert bad(found) == ["contracts"]
    assert "older than 2026-09-09: NSE_FO.csv, BSE_FO.csv" in said(found, "contracts")
    sim.masters["NSE_FO.csv"] = sim.masters["NSE_FO.csv"].replace(b"2026-09-08", b"2026-09-09")
    refresh(ports.settings, now=live.clock.moment)
    found = preflight(ports)
    assert found.is_ready
    assert lights(found)["contracts"] is Light.NOTE
    assert "older than 2026-09-09: BSE_FO.csv," in said(found, "contracts")


def test_halted_and_a_breaker_that_is_open(live: Live) -> None:
    ports = live.ports()
    Control(ports.desk()).set_state(TradingState.HALTED, "me", "because")
    broker = FakeBroker(FakeClock(MORNING))
    broker.unready = "the broker failed again and again"
    found = preflight(replace(ports, broker=broker))
    assert bad(found) == ["trading state", "breaker"]
    assert "HALTED" in said(found, "trading state")


def test_a_breaker_that_another_instance_opened(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preflight's own reads go past the guard, so only Redis can tell it."""
    monkeypatch.setattr(
        Lookout, "wake", lambda _: None
    )  # its thread would look on during the tests after this one
    with RedisServer(tmp_path) as server:
        here = live.ports(redis_url=server.url, breaker_reset_seconds=600)
        assert said(preflight(here), "breaker") == "closed: orders may go out"
        broker = FakeBroker(FakeClock(MORNING))
        there = guarded(broker, here.settings, At(datetime.now(UTC)), live.notifier)
        broker.next_place = [LOST] * here.settings.breaker_fail_max
        while broker.next_place:
            with there.exchange(Deadline(there.clock.monotonic() + 5)) as exchanger:
                assert exchanger.place(TICKET, lambda: None) == LOST
        found = preflight(here)
        assert bad(found) == ["breaker"]
        assert "orders are stopped" in said(found, "breaker")


def test_a_closed_breaker_that_nobody_else_could_be_asked_about(live: Live, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        ports = live.ports(redis_url=server.url)
    found = preflight(ports)
    assert lights(found)["redis"] is Light.NOTE
    assert "by what this process knows" in said(found, "breaker")


@pytest.mark.parametrize(
    ("ahead_s", "light"),
    [(0, Light.OK), (10, Light.NOTE), (-10, Light.NOTE), (90, Light.BAD), (-90, Light.BAD)],
)
def test_the_clock_goes_by_the_brokers_date_header(
    live: Live, web: MasterServer, ahead_s: int, light: Light
) -> None:
    web.files["funds"] = json.dumps({"s": "ok", "fund_limit": [{"id": 10, "equityAmount": 5}]}).encode()
    ports = live.ports(fyers_api_url=web.url, master=False)
    live.clock.moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    found = preflight(ports)
    assert lights(found)["clock"] is light
    assert lights(found)["market"] is not Light.BAD
    assert "5.00 rupees" in said(found, "funds")


def test_what_the_broker_and_the_calendar_disagree_on_is_noted(live: Live) -> None:
    seen = BrokerLook(available=None, market="OPEN", address_trouble="it answered 500")
    found = preflight(live.ports(), lambda _: seen)
    assert found.is_ready
    kinds = lights(found)
    assert kinds["market"] is kinds["funds"] is kinds["address"] is Light.NOTE
    assert "by the calendar it should be closed" in said(found, "market")


def test_an_answer_that_is_no_address_is_not_shown(live: Live, web: MasterServer) -> None:
    web.files["ip"] = b"<html>hello"
    found = preflight(live.ports())
    assert lights(found)["address"] is Light.NOTE
    assert "no address" in said(found, "address")


def test_its_two_reads_are_calls_of_the_budget(live: Live) -> None:
    ports = live.ports(fyers_calls_per_minute=3, fyers_calls_per_second=3)
    assert preflight(ports).is_ready
    found = preflight(ports)  # one call is left: the funds are asked for, the market is not
    assert found.is_ready
    assert lights(found)["market"] is not Light.BAD
    found = preflight(ports)
    assert bad(found) == ["funds"]
    assert "not asked" in said(found, "funds")


def test_a_redis_that_is_away_is_noted(live: Live) -> None:
    found = preflight(live.ports(redis_url="redis://127.0.0.1:1"))
    assert found.is_ready
    assert lights(found)["redis"] is Light.NOTE


def test_the_job_pages_when_not_ready_and_is_quiet_otherwise(live: Live) -> None:
    assert preflight_job.run(live.ports(), None) == "ready"
    assert live.notifier.told == []
    assert preflight_job.run(live.ports(fyers_app_id="SIMAPP-100"), None).startswith("not ready: Fyers app")
    ((code, text, page),) = live.notifier.told
    assert (code, page) == ("preflight_not_ready", True)
    assert "ends in -100" in text


@pytest.mark.parametrize(
    ("local", "is_time"),
    [
        ("2026-09-09 08:49", False),
        ("2026-09-09 08:50", True),
        ("2026-09-09 09:14", True),
        ("2026-09-09 09:15", False),
        ("2026-09-12 09:00", False),
    ],
)
def test_the_job_has_one_slot_before_each_session(live: Live, local: str, is_time: bool) -> None:
    moment = datetime.fromisoformat(local).replace(tzinfo=IST)
    slot = JOBS["preflight"].slot_at(live.ports(migrated=False, master=False), moment)
    assert slot == (MORNING if is_time else None)


def test_hours_that_were_switched_off_while_running_keep_nothing_back(live: Live) -> None:
    ports = live.ports()
    assert preflight(ports).waits_for_session
    assert ports.config is not None
    off = with_settings({"ENFORCE_MARKET_HOURS": "false"})
    ports.config.change("cli:me", "a special session", off)
    assert not preflight(ports).waits_for_session


def test_two_instances_page_once(live: Live) -> None:
    ports = live.ports(fyers_app_id="SIMAPP-100")
    one, other = Scheduler(ports), Scheduler(ports)
    for _ in range(3):
        one.tick(JOBS["preflight"])
        other.tick(JOBS["preflight"])
        Scheduler(ports).tick(JOBS["preflight"])  # one that has just started
        live.clock.moment += timedelta(minutes=5)
    assert [code for code, _, _ in live.notifier.told] == ["preflight_not_ready"]


class Dying(FakeBroker):
    """Its process ends in the middle of a look: no `except` of ours sees that."""

    def ready(self) -> str | None:
        raise SystemExit


def test_a_run_whose_process_died_is_made_up_for_the_same_morning(live: Live) -> None:
    ports = live.ports(fyers_app_id="SIMAPP-100")
    assert ports.beside is not None
    with pytest.raises(SystemExit):
        Scheduler(replace(ports, broker=Dying(FakeClock(MORNING)))).tick(JOBS["preflight"])
    (left,) = ports.beside.job_runs.last()
    assert (left.slot_at, left.ended_at) == (MORNING, None)
    heir = Scheduler(ports)
    heir.tick(JOBS["preflight"])
    assert [code for code, _, _ in live.notifier.told] == ["preflight_not_ready"]
    (made,) = ports.beside.job_runs.last()
    assert made.result.startswith("not ready")


def test_a_newcomer_on_paper(fresh: Operator) -> None:
    result = fresh.run("preflight")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == (
        "NOT READY: no entry would go out now. To mend: database, contracts."
    )
    upgrade(fresh.ports.settings.url)
    refresh(fresh.ports.settings)
    assert fresh.said("preflight").splitlines()[-1] == "READY: nothing here keeps an order back."
    told = json.loads(fresh.said("preflight", "--json"))
    assert told["ready"] is True
    assert told["mode"] == "paper"
    assert {f["light"] for f in told["findings"]} <= {"ok", "note", "skipped"}


def test_the_address_that_preflight_saw_is_in_the_refusals_text(live: Live, tmp_path: Path) -> None:
    preflight(live.ports())
    refused = Refused("-50", "Algo orders are not allowed from this app")
    assert "203.0.113.7, as seen at" in explained(refused, "A-200", seen_address(tmp_path)).message
