"""The symbol master's daily refresh: what may replace the last good copy, and what serves when nothing may."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.fyers.master_fetch import Copies, RefusedFile, check, file_names, inspect
from app.brokers.fyers.master_rows import Kind
from app.brokers.fyers.symbols import IndexedContracts
from app.domain.alert import Exchange, ExpiryRule, OptionType
from app.domain.risk import Denial
from app.errors import NoMaster
from app.refresh import Refreshed, refresh
from app.service.records import Resolved
from app.settings import Settings
from tests.unit.master_desk import NOW, StepClock, lot_of
from tests.unit.master_server import MasterServer, bse, nse, serving, settings_of

REAL = Path(__file__).parents[3] / "shared/data/symbol_master"
TOMORROW = datetime(2026, 11, 25, 5, tzinfo=UTC)
"""The 24th is a holiday: the file of that morning has to be of the 23rd."""


@pytest.fixture
def server() -> Iterator[MasterServer]:
    with serving() as running:
        running.files = {"NSE_FO.csv": nse(), "BSE_FO.csv": bse()}
        yield running


@pytest.fixture
def settings(tmp_path: Path, server: MasterServer) -> Settings:
    return settings_of(tmp_path, server.url)


def contracts_of(settings: Settings) -> IndexedContracts:
    return IndexedContracts(settings.instance_dir / "contracts-fyers", StepClock())


def ask_sensex(contracts: IndexedContracts, exchange: Exchange | None) -> Resolved | Denial:
    return contracts.resolve("SENSEX", Decimal(82_000), OptionType.CE, ExpiryRule.WEEKLY, exchange, NOW)


def sensex_lot(contracts: IndexedContracts) -> int:
    found = ask_sensex(contracts, None)
    assert isinstance(found, Resolved)
    return found.contract.lot


def words(done: Refreshed) -> dict[str, str]:
    return {f.name: f.word for f in done.files}


def test_a_refresh_asks_for_csvs_first_and_for_their_twins_after(
    server: MasterServer, settings: Settings
) -> None:
    done = refresh(settings, now=NOW)
    names = ["NSE_FO.csv", "BSE_FO.csv", "NSE_FO_sym_master.json", "BSE_FO_sym_master.json"]
    assert [name for name, _, _ in server.asked] == names
    assert words(done) == dict(zip(names, ["new", "new", "missing", "missing"], strict=True))
    assert done.stale == ()
    contracts = contracts_of(settings)
    assert (lot_of(contracts), sensex_lot(contracts)) == (65, 20)
    contracts.close()


def test_a_start_waits_for_no_twin(server: MasterServer, settings: Settings) -> None:
    refresh(settings, now=NOW, at_start=True)
    assert [name for name, _, _ in server.asked] == ["NSE_FO.csv", "BSE_FO.csv"]


def test_what_has_not_changed_is_not_sent_again(server: MasterServer, settings: Settings) -> None:
    refresh(settings, now=NOW)
    server.asked.clear()
    done = refresh(settings, now=NOW)
    assert server.statuses()["NSE_FO.csv"] == server.statuses()["BSE_FO.csv"] == 304
    assert words(done)["NSE_FO.csv"] == "unchanged"
    assert done.build.reused


def broken(server: MasterServer, how: str) -> None:
    """NSE_FO goes wrong in one way; with lot 75, so that it shows when it is taken all the same."""
    server.files["NSE_FO.csv"] = whole = nse("2026-11-23", lot=75)
    if how in ("cut", "drip"):
        server.fault["NSE_FO.csv"] = how
    elif how.isdigit():
        server.fault["NSE_FO.csv"] = int(how)
    else:
        server.files["NSE_FO.csv"] = {
            "html": b"<!DOCTYPE html><p>Attention Required!",
            "empty": b" \n",
            "json": b'{"s":"error"}',
            "a cut row": whole[:-40],
            "half the rows": nse("2026-11-23", lot=75, count=50),
            "five times the rows": whole * 5,
            "yesterday's": nse("2026-11-20", lot=75),
            "last week's": nse("2026-11-13", lot=75),
            "a day to come": nse("2026-12-13", lot=75),
            "bad rows": whole + b"cut,off\n" * 20,
        }[how]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut", "IncompleteRead"),
        ("500", "answered 500"),
        ("html", "web page"),
        ("empty", "empty"),
        ("json", "21 columns"),
        ("a cut row", "cut off"),
        ("half the rows", "50 rows, the last good copy has 100"),
        ("five times the rows", r"larger than|500 rows"),
        ("yesterday's", "of 2026-11-20, expected 2026-11-23 or later"),
        ("last week's", "older than the last good copy"),
        ("a day to come", "not come yet"),
        ("bad rows", "20 of its 120 rows are bad"),
    ],
)
def test_one_file_that_fails_keeps_its_last_good_copy_and_the_others_are_fresh(
    server: MasterServer, settings: Settings, how: str, why: str
) -> None:
    refresh(settings, now=NOW)
    broken(server, how)
    server.files["BSE_FO.csv"] = bse("2026-11-23", lot=25)
    done = refresh(settings, now=TOMORROW)
    (report,) = (f for f in done.files if f.name == "NSE_FO.csv")
    assert report.word == "kept"
    assert re.search(why, report.why), report.why
    assert done.stale == ("NSE_FO.csv",)
    contracts = contracts_of(settings)
    assert (lot_of(contracts), sensex_lot(contracts)) == (65, 25)
    assert contracts.age().dates == {"NSE_FO.csv": date(2026, 11, 20), "BSE_FO.csv": date(2026, 11, 23)}
    contracts.close()


def test_after_a_failure_the_next_good_file_is_taken(server: MasterServer, settings: Settings) -> None:
    refresh(settings, now=NOW)
    broken(server, "html")
    refresh(settings, now=TOMORROW)
    server.files["NSE_FO.csv"] = nse("2026-11-23", lot=75)
    server.files["BSE_FO.csv"] = bse("2026-11-23")
    assert refresh(settings, now=TOMORROW).stale == ()
    contracts = contracts_of(settings)
    assert lot_of(contracts) == 75
    contracts.close()


def test_a_persons_word_takes_a_much_smaller_file(server: MasterServer, settings: Settings) -> None:
    refresh(settings, now=NOW)
    server.files["NSE_FO.csv"] = nse("2026-11-23", count=50)
    assert words(refresh(settings, now=TOMORROW))["NSE_FO.csv"] == "kept"
    assert words(refresh(settings, now=TOMORROW, accept=True))["NSE_FO.csv"] == "new"
    server.files["NSE_FO.csv"] = b"<html>"
    assert words(refresh(settings, now=TOMORROW, accept=True))["NSE_FO.csv"] == "kept"


def test_with_all_sources_down_a_restart_serves_the_last_good_copies(
    server: MasterServer, settings: Settings
) -> None:
    refresh(settings, now=NOW)
    server.fault = {"NSE_FO.csv": 503, "BSE_FO.csv": 503}
    for index in (settings.instance_dir / "contracts-fyers").glob("*.sqlite"):
        index.unlink()  # another version of the service cannot read the old index: it is built of the copies
    done = refresh(settings, now=TOMORROW, at_start=True)
    assert done.stale == ("NSE_FO.csv", "BSE_FO.csv")
    contracts = contracts_of(settings)
    assert (lot_of(contracts), sensex_lot(contracts)) == (65, 20)
    contracts.close()


def test_without_any_copy_there_is_no_index_and_an_old_file_is_better_than_none(
    server: MasterServer, settings: Settings
) -> None:
    files, server.files = server.files, {}
    with pytest.raises(NoMaster, match=r"NSE_FO.csv: missing \(the server answered 404\)"):
        refresh(settings, now=NOW)
    server.files = files
    assert refresh(settings, now=TOMORROW).stale == ("NSE_FO.csv", "BSE_FO.csv")
    contracts = contracts_of(settings)
    assert contracts.age().dates["NSE_FO.csv"] == date(2026, 11, 20)
    contracts.close()


def test_without_nses_list_an_order_that_names_no_exchange_does_not_go_to_bse(
    server: MasterServer, settings: Settings
) -> None:
    server.files = {"BSE_FO.csv": bse()}
    assert refresh(settings, now=NOW).stale == ("NSE_FO.csv",)
    contracts = contracts_of(settings)
    with pytest.raises(NoMaster, match=r"NSE's list of options is missing .*or name the exchange"):
        ask_sensex(contracts, None)
    with pytest.raises(NoMaster, match="NSE's list"):
        ask_sensex(contracts, Exchange.NSE)  # no "NSE does not list it": that is not known
    with pytest.raises(NoMaster, match="NSE's list"):
        contracts.next_expiry("SENSEX", NOW)
    named = ask_sensex(contracts, Exchange.BSE)
    assert isinstance(named, Resolved)
    server.files["NSE_FO.csv"] = nse()
    refresh(settings, now=NOW)
    contracts.close()
    assert ask_sensex(contracts, None) == replace(
        named, explanation=named.explanation.replace("BSE as asked", "BSE, since only it lists SENSEX")
    )
    contracts.close()


def test_without_bses_list_what_nse_lists_goes_there_and_the_rest_is_not_unknown(
    server: MasterServer, settings: Settings
) -> None:
    del server.files["BSE_FO.csv"]
    refresh(settings, now=NOW)
    contracts = contracts_of(settings)
    assert lot_of(contracts) == 65
    with pytest.raises(NoMaster, match="BSE's list"):
        ask_sensex(contracts, None)
    contracts.close()


def test_where_only_bse_is_configured_nse_is_not_waited_for(server: MasterServer, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, server.url, "BSE_FO")
    refresh(settings, now=NOW)
    contracts = contracts_of(settings)
    assert sensex_lot(contracts) == 20
    contracts.close()


def test_the_same_files_are_another_index_once_more_is_expected(server: MasterServer, tmp_path: Path) -> None:
    refresh(settings_of(tmp_path, server.url, "BSE_FO"), now=NOW)
    both = settings_of(tmp_path, server.url)
    del server.files["NSE_FO.csv"]
    assert not refresh(both, now=NOW).build.reused
    contracts = contracts_of(both)
    with pytest.raises(NoMaster, match="NSE's list"):
        ask_sensex(contracts, None)
    contracts.close()


@pytest.mark.parametrize("at_start", [False, True])
def test_a_lost_copy_that_cannot_be_had_again_does_not_take_its_exchange_out_of_the_index(
    server: MasterServer, settings: Settings, at_start: bool
) -> None:
    refresh(settings, now=NOW)
    (settings.instance_dir / "contracts-fyers" / "sources" / "NSE_FO.csv").unlink()
    server.fault["NSE_FO.csv"] = 503
    server.files["BSE_FO.csv"] = bse("2026-11-23", lot=25)
    with pytest.raises(NoMaster, match=r"present index stays: a new one would lose NSE_FO\.csv"):
        refresh(settings, now=TOMORROW, at_start=at_start)
    contracts = contracts_of(settings)
    assert (lot_of(contracts), sensex_lot(contracts)) == (65, 20)
    contracts.close()
    del server.fault["NSE_FO.csv"]
    server.files["NSE_FO.csv"] = nse("2026-11-23", lot=75)
    assert refresh(settings, now=TOMORROW).stale == ()
    assert (lot_of(contracts), sensex_lot(contracts)) == (75, 25)
    contracts.close()


def test_a_copy_whose_promotion_was_killed_between_file_and_meta_is_used(
    server: MasterServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(settings, now=NOW)
    server.files["NSE_FO.csv"] = nse("2026-11-23", lot=75, count=99)
    server.files["BSE_FO.csv"] = bse("2026-11-23")
    move = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "NSE_FO.csv.meta":
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(settings, now=TOMORROW)
    server.fault = {"NSE_FO.csv": 503, "BSE_FO.csv": 503}
    done = refresh(settings, now=TOMORROW)
    (report,) = (f for f in done.files if f.name == "NSE_FO.csv")
    assert (report.word, report.dated, report.rows) == ("kept", "2026-11-23", 99)


def test_a_server_that_drips_ends_at_the_deadline(server: MasterServer, tmp_path: Path) -> None:
    server.fault["NSE_FO.csv"] = "drip"
    copies = Copies(tmp_path / "sources")
    started = time.monotonic()
    (report,) = copies.bring(server.url, ["NSE_FO.csv"], NOW.date(), date(2026, 11, 20), limit_s=0.3)
    assert time.monotonic() - started < 2
    assert report.path is None
    assert "within the time" in report.why
    assert list((tmp_path / "sources").iterdir()) == []


def test_a_restart_with_an_index_waits_a_short_time_for_a_server_that_hangs(
    server: MasterServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(settings, now=NOW)
    broken(server, "drip")
    monkeypatch.setattr("app.refresh.RESTART_LIMIT_S", 0.2)
    started = time.monotonic()
    done = refresh(settings, now=TOMORROW, at_start=True)
    assert time.monotonic() - started < 5
    assert words(done) == {
        "NSE_FO.csv": "kept",
        "BSE_FO.csv": "kept",
        "NSE_FO_sym_master.json": "missing",
        "BSE_FO_sym_master.json": "missing",
    }
    contracts = contracts_of(settings)
    assert lot_of(contracts) == 65
    contracts.close()


def test_a_redirect_is_followed(server: MasterServer, settings: Settings) -> None:
    server.fault["NSE_FO.csv"] = 302
    assert words(refresh(settings, now=NOW))["NSE_FO.csv"] == "new"


def test_a_build_that_fails_promotes_nothing(
    server: MasterServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(settings, now=NOW)
    server.files["NSE_FO.csv"] = nse("2026-11-23", lot=75)
    monkeypatch.setattr("app.brokers.fyers.master_refresh.BUILD_LIMIT_S", 0.001)
    with pytest.raises(NoMaster):
        refresh(settings, now=TOMORROW)
    monkeypatch.undo()
    server.fault = {"NSE_FO.csv": 503, "BSE_FO.csv": 503}
    refresh(settings, now=TOMORROW)
    contracts = contracts_of(settings)
    assert lot_of(contracts) == 65
    contracts.close()


def test_a_copy_whose_other_half_is_missing_is_none(server: MasterServer, settings: Settings) -> None:
    refresh(settings, now=NOW)
    copy = settings.instance_dir / "contracts-fyers" / "sources" / "NSE_FO.csv"
    copy.write_bytes(copy.read_bytes()[:-10])
    server.asked.clear()
    refresh(settings, now=NOW)
    assert server.statuses()["NSE_FO.csv"] == 200  # asked for without conditions


def test_two_refreshes_at_once_are_one(server: MasterServer, settings: Settings) -> None:
    from app.refresh import _alone

    directory = settings.instance_dir / "contracts-fyers"
    directory.mkdir(parents=True)
    with _alone(directory / "refresh.lock"), pytest.raises(NoMaster, match="another process"):
        refresh(settings, now=NOW)
    assert server.asked == []


def test_names() -> None:
    assert file_names(("NSE_FO", "NSE_CM.csv", "NSE_FO_sym_master"), twins=True) == [
        "NSE_FO.csv",
        "NSE_CM.csv",
        "NSE_FO_sym_master.json",
    ]


def test_a_twin_that_is_cut_off_keeps_its_last_good_copy(server: MasterServer, settings: Settings) -> None:
    entry = {"symTicker": "NSE:NIFTY26NOV24500CE", "fyToken": "1011261124" + "24500", "qtyFreeze": "1800"}
    server.files["NSE_FO_sym_master.json"] = whole = json.dumps({"a": entry}).encode()
    refresh(settings, now=NOW)
    server.files["NSE_FO_sym_master.json"] = whole[:-2]
    done = refresh(settings, now=NOW)
    assert words(done)["NSE_FO_sym_master.json"] == "kept"
    contracts = contracts_of(settings)
    found = contracts.by_ticker("NSE:NIFTY26NOV24500CE", NOW)
    assert found is not None
    assert found.freeze == 1800
    contracts.close()


@pytest.mark.skipif(not REAL.exists(), reason="needs the shared real files")
def test_real_files_pass_the_look_and_two_real_days_follow_each_other() -> None:
    older = inspect("BSE_FO.csv", REAL / "BSE_FO.2025-10-24.csv")
    newer = inspect("BSE_FO.csv", REAL / "BSE_FO.2025-11-10.csv")
    assert (older.rows, older.dated) == (7106, "2025-10-24")
    assert (newer.rows, newer.dated) == (6708, "2025-11-10")
    days = date(2025, 11, 11), date(2025, 11, 10)
    check(Kind.OPTIONS, newer, older, older, days)
    with pytest.raises(RefusedFile, match="older than the last good copy"):
        check(Kind.OPTIONS, older, newer, newer, days)
    assert inspect("NSE_CM.csv", REAL / "NSE_CM.2026-07-01.csv").dated == "2026-07-01"
