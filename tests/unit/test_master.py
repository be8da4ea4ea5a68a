"""The symbol master: row checks, the index file's life, and the download."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.fyers import master_rows
from app.brokers.fyers.master_rows import Bad
from app.brokers.fyers.symbols import IndexedContracts, MasterFetcher, build_from_bytes, refresh
from app.brokers.paper.master import paper_master
from app.domain.alert import ExpiryRule, OptionType
from app.errors import NoMaster
from app.service.records import Resolved
from tests.builders_master import as_csv, cash_row, nse_fo, option_row

NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)
EXPIRY = date(2026, 11, 24)
BASE = "http://masters"


class StepClock:
    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.moment


def good(strike: int = 24500, *, lot: int = 65, token: int | None = None) -> list[str]:
    return option_row("NIFTY", EXPIRY, str(strike), "CE", monthly=True, token=token or strike, lot=lot)


def many(lot: int = 65) -> list[list[str]]:
    return [good(strike, lot=lot) for strike in range(20_000, 25_000, 50)]


def lot_of(contracts: IndexedContracts) -> int:
    found = contracts.resolve("NIFTY", Decimal(24500), OptionType.CE, ExpiryRule.WEEKLY, None, NOW)
    assert isinstance(found, Resolved)
    return found.contract.lot


BREAKS: dict[str, Callable[[list[str]], object]] = {
    "too few columns": lambda r: r.pop(),
    "token of another row": lambda r: r.__setitem__(12, "1"),
    "expiry of another day": lambda r: r.__setitem__(8, str(int(r[8]) + 86_400)),
    "no epoch": lambda r: r.__setitem__(8, " "),
    "type against the ticker": lambda r: r.__setitem__(16, "PE"),
    "type of a future": lambda r: r.__setitem__(16, "XX"),
    "ticker of another exchange": lambda r: r.__setitem__(9, r[9].replace("NSE", "BSE")),
    "currency segment": lambda r: r.__setitem__(11, "12"),
    "unknown exchange": lambda r: r.__setitem__(10, "11"),
    "lot zero": lambda r: r.__setitem__(3, "0"),
    "lot a fraction": lambda r: r.__setitem__(3, "65.5"),
    "tick zero": lambda r: r.__setitem__(4, "0"),
    "tick not a number": lambda r: r.__setitem__(4, "nan"),
    "strike negative": lambda r: r.__setitem__(15, "-1.0"),
    "strike infinite": lambda r: r.__setitem__(15, "inf"),
    "strike a word": lambda r: r.__setitem__(15, "high"),
    "undated": lambda r: r.__setitem__(7, "None"),
    "no underlying": lambda r: r.__setitem__(13, ""),
    "unknown instrument": lambda r: r.__setitem__(2, "99"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_row_is_bad(name: str) -> None:
    row = good()
    assert master_rows.option(row) is not None
    BREAKS[name](row)
    with pytest.raises(Bad):
        master_rows.option(row)


@pytest.mark.parametrize("option_type", ["XX", ""])
def test_a_future_is_neither_an_option_nor_bad(option_type: str) -> None:
    row = good()
    row[2], row[15], row[16] = "11", "-1.0", option_type
    assert master_rows.option(row) is None


@pytest.mark.parametrize("expiry", ["", " "])
def test_a_cash_row_needs_no_expiry_date_or_lot(expiry: str) -> None:
    row = cash_row("NSE:NIFTY50-INDEX", "NIFTY", 26000, dated="None")
    row[8] = expiry
    assert master_rows.cash(row).dated is None


def test_strikes_are_exact_both_ways() -> None:
    for text in ("24500", "407.5", "0.0001", "12.25"):
        units = master_rows.strike_units(Decimal(text))
        assert units is not None
        assert f"{master_rows.strike_of(units):f}" == text
    assert master_rows.strike_units(Decimal("24500.0000000000000000000000000001")) is None


def test_bad_rows_are_skipped_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = good(30_000)
    wrong[12] = "1"
    report = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv([*many(), wrong, ["cut", "off"]])})
    assert (report.rows, report.skipped) == (100, 2)
    assert len(caplog.records) == 1
    contracts = IndexedContracts(tmp_path, StepClock())
    age = contracts.age()
    assert (age.rows, age.skipped, age.dates) == (100, 2, {"NSE_FO.csv": date(2026, 11, 20)})
    contracts.close()


def test_two_tickers_for_one_contract_are_both_left_out(tmp_path: Path) -> None:
    twin = good(24500, token=1)
    twin[9] = "NSE:NIFTY26NOV24500XCE"
    report = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv([*many(), twin])})
    assert (report.rows, report.skipped) == (99, 1)


def test_the_paper_exchanges_master_has_no_bad_row(tmp_path: Path) -> None:
    report = build_from_bytes(tmp_path, paper_master(NOW.date()))
    assert report.skipped == 0
    contracts = IndexedContracts(tmp_path, StepClock())
    found = contracts.resolve("NIFTY", Decimal(26000), OptionType.CE, ExpiryRule.WEEKLY, None, NOW)
    assert isinstance(found, Resolved)
    assert found.contract.freeze == 1800
    assert found.contract.underlying_ticker == "NSE:NIFTY50-INDEX"
    contracts.close()


def test_without_an_index_there_is_no_master(tmp_path: Path) -> None:
    contracts = IndexedContracts(tmp_path / "none", StepClock())
    with pytest.raises(NoMaster):
        contracts.age()
    (tmp_path / "none").mkdir()
    with pytest.raises(NoMaster):
        lot_of(contracts)


def test_a_newer_file_is_noticed_and_the_old_one_deleted(tmp_path: Path) -> None:
    contracts = IndexedContracts(tmp_path, StepClock())
    first = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    assert lot_of(contracts) == 65
    second = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many(lot=75))})
    assert lot_of(contracts) == 75
    assert not first.path.exists()
    assert second.path.name.startswith("contracts-v2-2026-11-20-")
    contracts.close()


def test_a_change_that_the_directorys_stamp_hides_is_noticed_after_a_second(tmp_path: Path) -> None:
    clock = StepClock()
    contracts = IndexedContracts(tmp_path, clock)
    build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    assert lot_of(contracts) == 65
    stamp = tmp_path.stat().st_mtime_ns
    build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many(lot=75))})
    os.utime(tmp_path, ns=(stamp, stamp))
    assert lot_of(contracts) == 65
    clock.moment = 1.0
    assert lot_of(contracts) == 75
    contracts.close()


def test_an_unreadable_newer_file_leaves_the_open_one_in_use(tmp_path: Path) -> None:
    clock = StepClock()
    contracts = IndexedContracts(tmp_path, clock)
    build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    assert lot_of(contracts) == 65
    (tmp_path / "contracts-v2-2026-11-23-dead.sqlite").write_bytes(b"not a database" * 1000)
    clock.moment = 1.0
    assert lot_of(contracts) == 65
    contracts.close()
    with pytest.raises(NoMaster):
        lot_of(IndexedContracts(tmp_path, clock))


def test_the_same_sources_are_built_once(tmp_path: Path) -> None:
    files = {"NSE_FO.csv": as_csv(many())}
    assert not build_from_bytes(tmp_path, files).reused
    assert build_from_bytes(tmp_path, files).reused


def test_concurrent_builders_wait_and_share_one_build(tmp_path: Path) -> None:
    files = {"NSE_FO.csv": nse_fo(2000, NOW.date())}
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: build_from_bytes(tmp_path, files), range(3)))
    assert sorted(r.reused for r in reports) == [False, True, True]
    assert len({r.path for r in reports}) == 1


@pytest.mark.parametrize("content", [b"", b"<html>no</html>\n", as_csv([["a"] * 21] * 10)])
def test_a_build_that_fails_leaves_the_old_index(tmp_path: Path, content: bytes) -> None:
    first = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    with pytest.raises(NoMaster):
        build_from_bytes(tmp_path, {"NSE_FO.csv": content})
    assert {p.name for p in tmp_path.iterdir()} == {"build.lock", first.path.name}


def test_a_file_that_is_mostly_bad_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoMaster, match="are bad"):
        build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv([*many(), *([["cut"]] * 20)])})


def _children() -> set[int]:
    """Pids of the index builders that this process has started and that are still running."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if b"app.brokers.fyers.index_build" in command and parent == os.getpid():
            found.add(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the child through /proc")
def test_a_killed_child_leaves_the_old_index(tmp_path: Path) -> None:
    first = build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    source = tmp_path / "big.csv"
    source.write_bytes(nse_fo(60_000, NOW.date()))
    failed: list[NoMaster] = []

    def build() -> None:
        try:
            refresh(tmp_path, {"NSE_FO.csv": source})
        except NoMaster as exc:
            failed.append(exc)

    builder = threading.Thread(target=build)
    builder.start()
    while builder.is_alive():
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
    builder.join()
    assert len(failed) == 1
    assert "-9" in str(failed[0])
    contracts = IndexedContracts(tmp_path, StepClock())
    assert lot_of(contracts) == 65
    assert [p.name for p in tmp_path.glob("*contracts*")] == [first.path.name]
    assert not list(tmp_path.glob("building-*"))
    contracts.close()
    assert not refresh(tmp_path, {"NSE_FO.csv": source}).reused


def test_the_child_loads_nothing_of_the_web() -> None:
    code = (
        "import sys, app.brokers.fyers.index_build;"
        "bad = {'flask', 'requests', 'pydantic', 'sqlalchemy', 'fyers_apiv3'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_look_ups_from_many_threads_during_swaps(tmp_path: Path) -> None:
    build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many())})
    contracts = IndexedContracts(tmp_path, StepClock())
    done = threading.Event()

    def look() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(lot_of(contracts))
        return seen

    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(look) for _ in range(4)]
        build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many(lot=75))})
        done.set()
        assert set().union(*(f.result() for f in looking)) <= {65, 75}
    assert lot_of(contracts) == 75
    contracts.close()


def test_the_fetcher_gets_every_named_file(tmp_path: Path) -> None:
    served = {f"{BASE}/NSE_FO.csv": as_csv(many()), f"{BASE}/NSE_CM.csv": as_csv([cash_row("NSE:X", "X", 1)])}
    served[f"{BASE}/NSE_FO_sym_master.json"] = b"{}"
    names = ("NSE_FO", "NSE_CM", "NSE_FO_sym_master")
    paths = MasterFetcher().fetch(f"{BASE}/", names, tmp_path, served.__getitem__)
    assert {name: path.read_bytes() for name, path in paths.items()} == {
        url.removeprefix(f"{BASE}/"): content for url, content in served.items()
    }
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("answer", [b"", b"  \n", b"<!DOCTYPE html><p>Attention Required!", b'{"s":"error"}'])
def test_the_fetcher_refuses_what_is_no_master(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(NoMaster, match="NSE_FO"):
        MasterFetcher().fetch(BASE, ("NSE_FO",), tmp_path, lambda _: answer)
    assert list(tmp_path.iterdir()) == []


def test_a_cash_file_may_fail_and_an_options_file_may_not(tmp_path: Path) -> None:
    def get(url: str) -> bytes:
        if failing in url:
            raise ConnectionError("refused")
        return as_csv(many())

    failing = "NSE_CM"
    assert set(MasterFetcher().fetch(BASE, ("NSE_FO", "NSE_CM"), tmp_path, get)) == {"NSE_FO.csv"}
    failing = "NSE_FO"
    with pytest.raises(NoMaster, match="refused"):
        MasterFetcher().fetch(BASE, ("NSE_FO", "NSE_CM"), tmp_path, get)
