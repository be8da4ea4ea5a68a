"""The symbol master's copies in GCS: emulator, and before it the layer that enforces generations."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.brokers.fyers.symbols import IndexedContracts
from app.errors import NoMaster, StoreUnavailable
from app.refresh import Refreshed, refresh
from app.settings import Settings
from app.store.masters_gcs import GcsMasters
from tests.unit.master_desk import NOW, StepClock, lot_of
from tests.unit.master_server import MasterServer, bse, nse, serving, settings_of

pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
from tests.gcs_layer import GcsLayer

ROOT = Path(__file__).parents[2]
NSE, BSE = "symbol-master/NSE_FO.csv.gz", "symbol-master/BSE_FO.csv.gz"
TOMORROW = datetime(2026, 11, 25, 5, tzinfo=UTC)
"""The 24th is a holiday: the file of that morning has to be of the 23rd."""


@pytest.fixture
def gcs() -> Iterator[GcsLayer]:
    with GcsLayer() as running:
        yield running


@pytest.fixture
def server() -> Iterator[MasterServer]:
    with serving() as running:
        running.files = {"NSE_FO.csv": nse(), "BSE_FO.csv": bse()}
        yield running


def down(server: MasterServer) -> None:
    server.fault = {"NSE_FO.csv": 503, "BSE_FO.csv": 503}


class Host:
    """One machine with a disk of its own."""

    def __init__(self, directory: Path, server: MasterServer, gcs: GcsLayer) -> None:
        self.settings: Settings = settings_of(directory, server.url)
        self.vault = GcsMasters(gcs.bucket, gcs.client)

    def refresh(self, now: datetime = NOW, **more: Any) -> Refreshed:
        return refresh(self.settings, now=now, vault=self.vault, **more)

    def lot(self) -> int:
        contracts = IndexedContracts(self.settings.instance_dir / "contracts-fyers", StepClock())
        try:
            return lot_of(contracts)
        finally:
            contracts.close()


@pytest.fixture
def host(tmp_path: Path, server: MasterServer, gcs: GcsLayer) -> Host:
    return Host(tmp_path / "one", server, gcs)


@pytest.fixture
def other(tmp_path: Path, server: MasterServer, gcs: GcsLayer) -> Host:
    return Host(tmp_path / "two", server, gcs)


def words(done: Refreshed) -> dict[str, str]:
    return {f.name: f.word for f in done.files if f.name.endswith(".csv")}


def test_a_host_without_a_copy_and_without_fyers_starts_from_the_bucket(
    server: MasterServer, gcs: GcsLayer, host: Host, other: Host
) -> None:
    host.refresh()
    assert gzip.decompress(gcs.get(NSE)) == nse()
    down(server)
    done = other.refresh(at_start=True)
    assert words(done) == {"NSE_FO.csv": "from the bucket", "BSE_FO.csv": "from the bucket"}
    assert done.stale == ()
    assert "from the bucket of 2026-11-20, 100 rows (the server answered 503)" in str(done)
    assert other.lot() == 65
    gcs.hung.clear()  # from now on it has copies of its own, and asks nobody
    assert words(other.refresh(at_start=True)) == {"NSE_FO.csv": "kept", "BSE_FO.csv": "kept"}


def test_a_start_writes_nothing_and_the_next_refresh_does(
    server: MasterServer, gcs: GcsLayer, host: Host
) -> None:
    host.refresh(at_start=True)
    assert gcs.generations == {}
    assert words(host.refresh())["NSE_FO.csv"] == "unchanged"
    assert set(gcs.generations) == {NSE, BSE}
    before = dict(gcs.generations)
    host.refresh()
    assert gcs.generations == before


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (gzip.compress(b"<html>Attention", mtime=0), "web page"),
        (gzip.compress(nse()[:-40], mtime=0), "cut off"),
        (gzip.compress(nse("2026-12-13"), mtime=0), "not come yet"),
        (gzip.compress(nse() + b"cut,off\n" * 20, mtime=0), "rows are bad"),
        (gzip.compress(nse(), mtime=0)[:-300], "EOFError|BadGzipFile|error"),
        (nse(), "BadGzipFile"),
    ],
)
def test_what_the_bucket_holds_passes_the_same_look(
    server: MasterServer, gcs: GcsLayer, other: Host, content: bytes, why: str
) -> None:
    gcs.put(NSE, content)
    down(server)
    with pytest.raises(NoMaster, match=rf"NSE_FO.csv: missing \(the server answered 503; .*({why})"):
        other.refresh()
    assert list((other.settings.instance_dir / "contracts-fyers" / "sources").iterdir()) == []


def test_a_file_that_swells_without_end_is_left(
    server: MasterServer, gcs: GcsLayer, other: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs.put(NSE, gzip.compress(nse() * 400))
    monkeypatch.setattr("app.brokers.fyers.master_fetch.MOST_BYTES", 2_000_000)
    down(server)
    with pytest.raises(NoMaster, match="OverflowError"):
        other.refresh()


def test_a_host_whose_copy_is_too_old_takes_a_newer_one_but_not_half_of_it(
    server: MasterServer, gcs: GcsLayer, host: Host, other: Host
) -> None:
    other.refresh()
    server.files = {"NSE_FO.csv": nse("2026-11-23", lot=75), "BSE_FO.csv": bse("2026-11-23")}
    host.refresh(TOMORROW)
    down(server)
    done = other.refresh(TOMORROW)
    assert (words(done)["NSE_FO.csv"], done.stale, other.lot()) == ("from the bucket", (), 75)

    server.fault = {}
    server.files = {"NSE_FO.csv": nse("2026-11-25", count=50), "BSE_FO.csv": bse("2026-11-25")}
    next_day = datetime(2026, 11, 26, 5, tzinfo=UTC)
    host.refresh(next_day, accept=True)
    down(server)
    done = other.refresh(next_day)
    assert words(done)["NSE_FO.csv"] == "kept"
    assert "the bucket's copy: it has 50 rows, the last good copy has 100" in str(done)


def test_an_older_file_never_replaces_a_newer_one(
    server: MasterServer, gcs: GcsLayer, host: Host, other: Host
) -> None:
    server.files["NSE_FO.csv"] = nse("2026-11-23")
    host.refresh(TOMORROW)
    newer = gcs.get(NSE)
    server.files["NSE_FO.csv"] = nse("2026-11-20")
    other.refresh()
    assert gcs.get(NSE) == newer


@pytest.mark.parametrize("enforce", [True, False])
def test_of_two_hosts_that_write_at_once_the_later_look_wins(
    gcs: GcsLayer, tmp_path: Path, enforce: bool
) -> None:
    """Without the precondition (`enforce`) the older file would stand: the layer is what the guard is shown by."""
    gcs.enforce = enforce
    one, two = (GcsMasters(gcs.bucket, gcs.client) for _ in range(2))
    files = {day: tmp_path / day for day in ("2026-11-19", "2026-11-20", "2026-11-23")}
    for day, path in files.items():
        path.write_bytes(nse(day))
    assert one.put("NSE_FO.csv", files["2026-11-19"], "2026-11-19")
    look = one._look

    def and_then_the_other_writes(name: str) -> Any:
        found = look(name)
        assert two.put(name, files["2026-11-23"], "2026-11-23")
        return found

    one._look = and_then_the_other_writes  # type: ignore[method-assign]
    assert one.put("NSE_FO.csv", files["2026-11-20"], "2026-11-20") is not enforce
    assert two.dated("NSE_FO.csv") == ("2026-11-23" if enforce else "2026-11-20")


def test_a_bucket_that_fails_costs_no_refresh(server: MasterServer, gcs: GcsLayer, host: Host) -> None:
    def broken() -> Any:
        raise PermissionError("a url with a token in it")

    host.vault = GcsMasters(gcs.bucket, broken)
    done = host.refresh()
    assert host.lot() == 65
    assert "not copied: NSE_FO.csv cannot be written in the bucket: PermissionError" in str(done)
    assert "a url" not in str(done)
    with pytest.raises(StoreUnavailable):
        host.vault.dated("NSE_FO.csv")


def test_the_refreshs_own_process_finds_the_bucket_of_the_settings(
    server: MasterServer, gcs: GcsLayer, host: Host, tmp_path: Path
) -> None:
    host.refresh()
    down(server)
    env = {
        "PATH": os.environ["PATH"],
        "FYERS_APP_ID": "SIMAPP-200",
        "FYERS_ACCESS_TOKEN": "t",
        "INSTANCE_DIR": str(tmp_path / "three"),
        "SYMBOL_MASTER_URL": server.url,
        "SYMBOL_MASTER_FILES": "NSE_FO,BSE_FO",
        "GCS_BUCKET_NAME": gcs.bucket,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "GOOGLE_CLOUD_PROJECT": "tests",
    }
    command = [sys.executable, "-m", "app.refresh", "--start"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert "NSE_FO.csv: from the bucket of 2026-11-20, 100 rows" in done.stdout, done.stderr
