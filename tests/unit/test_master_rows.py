"""The symbol master: which rows are good, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.fyers import master_rows
from app.brokers.fyers.master_rows import Bad
from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.brokers.paper.master import paper_master
from app.domain.alert import ExpiryRule, OptionType
from app.service.records import Resolved
from tests.builders_master import as_csv, cash_row
from tests.unit.master_desk import NOW, StepClock, good, many

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
