"""The symbol master: its download."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.brokers.fyers.symbols import MasterFetcher
from app.errors import NoMaster
from tests.builders_master import as_csv, cash_row
from tests.unit.master_desk import many

BASE = "http://masters"


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
