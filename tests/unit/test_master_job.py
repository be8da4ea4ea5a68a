"""The contract index's daily refresh as a job: when it is due, that it runs beside the service, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.alert import IST
from app.errors import NoMaster
from app.jobs import master as master_job
from app.jobs.job import Job
from app.jobs.run import JOBS, Scheduler
from app.service.records import MasterAge
from app.settings import Settings
from app.web.ops import master_of
from app.web.ports import Ports
from tests.builders_master import nse_fo
from tests.unit.master_desk import NOW, StepClock, lot_of
from tests.unit.master_server import bse, nse, serving, settings_of
from tests.unit.operator_desk import Operator

ROOT = Path(__file__).parents[2]
FRESH, OLD = date(2026, 11, 20), date(2026, 11, 19)


class At:
    def __init__(self, local: str) -> None:
        self.moment = datetime.fromisoformat(local).replace(tzinfo=IST)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return 0.0


class Dated:
    """An index of these files; None: there is none."""

    def __init__(self, dates: dict[str, date] | None) -> None:
        self.dates = dates

    def age(self) -> MasterAge:
        if self.dates is None:
            raise NoMaster("none yet")
        return MasterAge(NOW, self.dates, 1, 0)


BOTH = {"NSE_FO.csv": FRESH, "BSE_FO.csv": FRESH}


@pytest.mark.parametrize(
    ("local", "dates", "since_last", "expected"),
    [
        ("2026-11-23 08:30", BOTH, None, True),  # a start waits for no twin
        ("2026-11-23 08:30", BOTH, 60, False),
        ("2026-11-23 08:30", BOTH | {"BSE_FO.csv": OLD}, 60, True),
        ("2026-11-23 08:30", {"NSE_FO.csv": FRESH}, 60, True),
        ("2026-11-23 08:30", BOTH | {"NSE_CM.csv": OLD}, 60, False),
        ("2026-11-23 07:59", BOTH | {"BSE_FO.csv": OLD}, 60, False),
        ("2026-11-23 08:00", BOTH | {"BSE_FO.csv": OLD}, 60, True),
        ("2026-11-23 08:30", BOTH | {"BSE_FO.csv": OLD}, 4, False),
        ("2026-11-23 03:00", None, 60, True),
        ("2026-11-23 03:00", None, 1, True),  # no entry passes without an index
        ("2026-11-23 03:00", None, 0.2, False),
        ("2026-11-22 12:00", BOTH, 60, False),  # on a Sunday Friday's is the right one
    ],
)
def test_when_it_is_due(
    operator: Operator, local: str, dates: dict[str, date] | None, since_last: float | None, expected: bool
) -> None:
    settings = settings_of(Path("instance"), "http://127.0.0.1:1")
    clock = At(local)
    ports = replace(operator.ports, settings=settings, clock=clock, contracts=Dated(dates))  # type: ignore[arg-type]
    last = None if since_last is None else clock.moment - timedelta(minutes=since_last)
    assert master_job.due(ports, last) is expected


def test_the_paper_exchanges_contracts_are_made_anew_each_day(operator: Operator) -> None:
    def due(dates: dict[str, date]) -> bool:
        clock, contracts = At("2026-11-23 00:10"), Dated(dates)
        return master_job.due(replace(operator.ports, clock=clock, contracts=contracts), None)  # type: ignore[arg-type]

    assert due({"NSE_FO.csv": OLD})
    assert not due({"NSE_FO.csv": FRESH})


def test_a_run_builds_the_index_in_a_process_of_its_own(operator: Operator) -> None:
    with pytest.raises(NoMaster):
        operator.ports.contracts.age()
    said = operator.said("jobs", "run", "refresh-master")
    assert "contract index: contracts-v" in said
    age = operator.ports.contracts.age()
    assert age.rows > 1000
    told: Any = master_of(operator.ports)
    assert (told["rows"], told["skipped"]) == (age.rows, 0)
    assert told["files"] == {name: day.isoformat() for name, day in age.dates.items()}
    assert 0 <= told["age_seconds"] < 600


def test_a_run_that_fails_says_the_childs_last_line(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = operator.ports.settings.model_copy(update={"instance_dir": tmp_path / "file"})
    with pytest.raises(NoMaster, match="contract index not refreshed: NotADirectoryError"):
        master_job.run(replace(operator.ports, settings=settings), None)


def test_a_hosts_own_job_asks_for_no_lease_and_one_that_is_not_due_does_not_run(operator: Operator) -> None:
    ran: list[tuple[str, tuple[str, str] | None]] = []

    def job(name: str, *, leased: bool, due: bool = True) -> Job:
        def run(_: Ports, lease: tuple[str, str] | None) -> str:
            ran.append((name, lease))
            return ""

        return Job(name, lambda _: 86_400.0, run, lambda _, last: due and last is None, is_leased=leased)

    one, other = Scheduler(operator.ports), Scheduler(operator.ports)
    for scheduler in (one, other, one):
        scheduler.tick(job("own", leased=False))
        scheduler.tick(job("shared", leased=True))
        scheduler.tick(job("never", leased=True, due=False))
    names = [name for name, _ in ran]
    assert names == ["own", "shared", "own"]
    assert [lease is None for _, lease in ran] == [True, False, True]


def test_which_jobs_are_each_hosts_own() -> None:
    assert {name for name, job in JOBS.items() if not job.is_leased} == {"refresh-master"}


def _start(settings: Settings, directory: Path) -> subprocess.Popen[bytes]:
    env = {
        "PATH": os.environ["PATH"],
        "FYERS_APP_ID": settings.fyers_app_id,
        "FYERS_ACCESS_TOKEN": "t",
        "SYMBOL_MASTER_URL": settings.symbol_master_url,
        "SYMBOL_MASTER_FILES": ",".join(settings.symbol_master_files),
        "INSTANCE_DIR": str(directory),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "app.refresh", "--start"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL
    )


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the builder through /proc")
def test_a_refresh_that_is_killed_in_the_middle_of_the_build_leaves_the_old_index(tmp_path: Path) -> None:
    from app.brokers.fyers.symbols import IndexedContracts

    today = datetime.now(UTC).date()
    with serving() as server:
        settings = settings_of(tmp_path, server.url)
        server.files = {"NSE_FO.csv": nse("2026-11-20"), "BSE_FO.csv": bse("2026-11-20")}
        assert _start(settings, tmp_path).wait(30) in (0, 3)
        directory = tmp_path / "contracts-fyers"
        before = {p.name for p in directory.glob("contracts-*")}
        server.files["NSE_FO.csv"] = nse_fo(60_000, today)
        (directory / "sources" / "NSE_FO.csv.meta").unlink()  # so that a much larger file passes
        refreshing = _start(settings, tmp_path)
        while not list(directory.glob("building-*")):
            assert refreshing.poll() is None, "the build was over before it could be killed"
        refreshing.send_signal(signal.SIGKILL)
        refreshing.wait()
        assert {p.name for p in directory.glob("contracts-*")} == before
        contracts = IndexedContracts(directory, StepClock())
        assert lot_of(contracts) == 65
        assert contracts.age().rows == 150
        contracts.close()
        assert _start(settings, tmp_path).wait(60) in (0, 3)
        contracts = IndexedContracts(directory, StepClock())
        assert contracts.age().rows > 50_000
        contracts.close()
        assert not list(directory.glob("building-*"))
