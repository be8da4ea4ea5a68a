"""The symbol master: the index file's life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes, refresh
from app.errors import NoMaster
from tests.builders_master import as_csv, nse_fo
from tests.unit.master_desk import NOW, StepClock, lot_of, many


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
    assert second.path.name.startswith("contracts-v4-2026-11-20-")
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
    (tmp_path / "contracts-v4-2026-11-23-dead.sqlite").write_bytes(b"not a database" * 1000)
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
            with suppress(ProcessLookupError):  # it died of the one before, and was still listed
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


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("app.brokers.fyers.index_build", set()),
        ("app.refresh, app.brokers.paper.master, app.brokers.fyers.symbols", {"pydantic"}),
    ],
)
def test_the_child_loads_nothing_of_the_web(module: str, allowed: set[str]) -> None:
    """A start waits for it: what the process of the index loads comes on top of what serving ones load."""
    code = (
        f"import sys, {module};"
        f"allowed = {allowed};"
        "bad = {'flask', 'requests', 'pydantic', 'sqlalchemy', 'fyers_apiv3'} & set(sys.modules) - allowed;"
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
