"""The symbol master's JSON twin: read in pieces, believed for its own day, and missed by nobody."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.brokers.fyers import master_twin
from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.domain.contract import Contract
from tests.builders_master import as_csv
from tests.unit.master_desk import NOW, StepClock, good, many

REAL = Path(__file__).parents[3] / "shared/data/symbol_master/NSE_FO_sym_master.real_rows.2024-07-02.json"
DAY = "2026-11-20"


def entry(**changes: Any) -> dict[str, Any]:
    """The twin of the row that `good()` makes."""
    row = good()
    usual = {
        "symTicker": row[9],
        "fyToken": row[0],
        "lastUpdate": DAY,
        "minLotSize": 65,
        "qtyFreeze": "1800",
        "upperPrice": 2132.5,
        "lowerPrice": 0.05,
        "tradeStatus": 1,
    }
    return usual | changes


def contract_with(tmp_path: Path, *entries: dict[str, Any]) -> Contract | None:
    twin = json.dumps({str(n): e for n, e in enumerate(entries)}).encode()
    build_from_bytes(tmp_path, {"NSE_FO.csv": as_csv(many()), "NSE_FO_sym_master.json": twin})
    contracts = IndexedContracts(tmp_path, StepClock())
    found = contracts.by_ticker(good()[9], NOW)
    contracts.close()
    return found


def told(found: Contract | None) -> tuple[object, ...]:
    assert found is not None
    return found.freeze, found.circuit_low, found.circuit_high, found.tradable


def test_a_contract_carries_what_its_twin_says(tmp_path: Path) -> None:
    assert told(contract_with(tmp_path, entry())) == (1800, Decimal("0.05"), Decimal("2132.5"), True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tradeStatus": 0}, (1800, Decimal("0.05"), Decimal("2132.5"), False)),
        ({"tradeStatus": None, "qtyFreeze": ""}, (None, Decimal("0.05"), Decimal("2132.5"), None)),
        ({"upperPrice": 0.0}, (1800, None, None, True)),
        ({"upperPrice": "NaN"}, (1800, None, None, True)),
        ({"lowerPrice": 3000}, (1800, None, None, True)),
        ({"fyToken": "1"}, (None, None, None, None)),
        ({"lastUpdate": "2026-11-19", "minLotSize": 75}, (1800, None, None, None)),
    ],
)
def test_what_it_does_not_say_usably_is_unknown(
    tmp_path: Path, changes: dict[str, Any], expected: tuple[object, ...]
) -> None:
    assert told(contract_with(tmp_path, entry(**changes))) == expected


def test_a_contract_whose_lot_two_files_of_one_day_disagree_on_is_left_out(tmp_path: Path) -> None:
    assert contract_with(tmp_path, entry(minLotSize=75)) is None
    contracts = IndexedContracts(tmp_path, StepClock())
    assert contracts.age().skipped == 1
    contracts.close()


def test_an_absent_or_broken_twin_denies_nothing(tmp_path: Path) -> None:
    files = {"NSE_FO.csv": as_csv(many())}
    for twin in ({}, {"NSE_FO_sym_master.json": b'{"a": {"symTicker": "NSE:'}):
        assert build_from_bytes(tmp_path, files | twin).rows == 100


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": 1}', '{"a": {}', '{"a": {}} x', '{"a": {} "b": {}}', '{"a": {},}', '{"a" {}}'],
)
def test_what_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        list(master_twin.entries(io.StringIO(text)))


def test_a_large_one_is_read_in_pieces() -> None:
    class Counted(io.StringIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> str:
            found = super().read(size)
            self.largest = max(self.largest, len(found))
            return found

    rows = {f"T{n}": {"symTicker": f"T{n}", "pad": "x" * 800} for n in range(5000)}
    text = Counted(json.dumps(rows, indent=1))
    assert [e["symTicker"] for e in master_twin.entries(text)] == list(rows)
    assert text.largest <= master_twin.PIECE < len(text.getvalue()) / 3


def test_an_entry_without_end_is_not_read_for_ever() -> None:
    with pytest.raises(ValueError):
        list(master_twin.entries(io.StringIO('{"a": {"pad": "' + "x" * 3 * master_twin.PIECE)))


@pytest.mark.skipif(not REAL.exists(), reason="needs the shared real rows")
def test_real_rows() -> None:
    with REAL.open(encoding="utf-8") as text:
        found = dict(filter(None, map(master_twin.option, master_twin.entries(text))))
    row = found["NSE:BANKNIFTY24JUL52000CE", "101124073150625"]
    assert row == master_twin.TwinRow(900, "61.9", "2132.5", True, 15, "2024-07-02")
