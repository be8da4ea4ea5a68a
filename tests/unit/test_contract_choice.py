"""Which contract an alert means: exchange, expiry and strike, on generated and on the real files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.domain.alert import IST, Exchange, ExpiryRule, OptionType
from app.domain.contract import Contract
from app.domain.risk import Denial
from app.service.records import Resolved
from tests.builders_master import as_csv, cash_row, option_row, session_end

MASTERS = Path(__file__).parents[2].parent / "shared" / "data" / "symbol_master"
MORNING = datetime(2026, 11, 23, 5, tzinfo=UTC)
NEAR, NEXT, LAST = date(2026, 11, 24), date(2026, 12, 1), date(2026, 12, 29)
NSE_STOCK, BSE_STOCK = date(2026, 11, 30), date(2026, 11, 26)


class StillClock:
    def now(self) -> datetime:
        return MORNING

    def monotonic(self) -> float:
        return 0.0


def contract_of(answer: Resolved | Denial) -> Contract:
    assert isinstance(answer, Resolved), answer
    return answer.contract


def denial_of(answer: Resolved | Denial) -> Denial:
    assert isinstance(answer, Denial), answer
    return answer


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexedContracts]:
    directory = tmp_path_factory.mktemp("contracts")
    nse = [
        option_row("NIFTY", expiry, str(strike), kind, monthly=expiry != NEXT, token=1000 + n * 10 + k)
        for n, (expiry, strike) in enumerate(
            (e, s) for e in (NEAR, NEXT, LAST) for s in (24450, 24500, 24550)
        )
        for k, kind in enumerate(("CE", "PE"))
    ]
    stock = {"monthly": True, "stock": True, "scrip": 2885, "lot": 500}
    nse.append(option_row("RELIANCE", NSE_STOCK, "1500", "CE", token=9000, **stock))  # type: ignore[arg-type]
    bse = [
        option_row(
            "RELIANCE", BSE_STOCK, "1500", "CE", exchange="BSE", monthly=True, stock=True, scrip=500325
        ),
        option_row("ITC", BSE_STOCK, "407.5", "PE", exchange="BSE", monthly=True, stock=True, token=77),
    ]
    files = {
        "NSE_FO.csv": as_csv(nse),
        "BSE_FO.csv": as_csv(bse),
        "NSE_CM.csv": as_csv([cash_row("NSE:NIFTY50-INDEX", "NIFTY", 26000)]),
        "BSE_CM.csv": as_csv([cash_row("BSE:RELIANCE-A", "RELIANCE", 500325, exchange="BSE", dated="None")]),
        "NSE_FO_sym_master.json": (
            f'{{"{nse[0][9]}": {{"symTicker": "{nse[0][9]}", "fyToken": "{nse[0][0]}", "qtyFreeze": "1800"}},'
            f'"{nse[1][9]}": {{"symTicker": "{nse[1][9]}", "fyToken": "{nse[1][0]}", "qtyFreeze": ""}}}}'
        ).encode(),
    }
    build_from_bytes(directory, files)
    index = IndexedContracts(directory, StillClock())
    yield index
    index.close()


def ask(
    contracts: IndexedContracts,
    symbol: str = "NIFTY",
    strike: str = "24450",
    kind: OptionType = OptionType.CE,
    expiry: ExpiryRule | date = ExpiryRule.WEEKLY,
    exchange: Exchange | None = None,
    now: datetime = MORNING,
) -> Resolved | Denial:
    return contracts.resolve(symbol, Decimal(strike), kind, expiry, exchange, now)


def test_a_contract_carries_what_its_row_says(contracts: IndexedContracts) -> None:
    assert contract_of(ask(contracts, "nifty", "24450.00")) == Contract(
        exchange=Exchange.NSE,
        underlying="NIFTY",
        expiry=NEAR,
        session_end=datetime(2026, 11, 24, 10, 10, tzinfo=UTC),
        strike=Decimal(24450),
        option_type=OptionType.CE,
        ticker="NSE:NIFTY26NOV24450CE",
        lot=65,
        tick=Decimal("0.05"),
        freeze=1800,
        underlying_ticker="NSE:NIFTY50-INDEX",
        is_stock=False,
        master_date=date(2026, 11, 20),
    )


def test_a_ticker_finds_the_contract_that_its_parts_find_until_its_session_ends(
    contracts: IndexedContracts,
) -> None:
    bse = ask(contracts, "ITC", "407.5", OptionType.PE, BSE_STOCK)
    for found in (contract_of(ask(contracts)), contract_of(bse)):
        assert contracts.by_ticker(found.ticker, MORNING) == found
        assert contracts.by_ticker(found.ticker, found.session_end - timedelta(seconds=1)) == found
        assert contracts.by_ticker(found.ticker, found.session_end) is None
    assert contracts.by_ticker("NSE:NIFTY26NOV99999CE", MORNING) is None


def test_the_next_expiry_is_one_whose_session_has_not_ended(contracts: IndexedContracts) -> None:
    first = contract_of(ask(contracts))
    assert contracts.next_expiry("NIFTY", first.session_end - timedelta(seconds=1)) == first.expiry
    later = contracts.next_expiry("NIFTY", first.session_end)
    assert later is not None
    assert later > first.expiry


def test_a_freeze_that_is_not_known_is_none(contracts: IndexedContracts) -> None:
    assert contract_of(ask(contracts, kind=OptionType.PE)).freeze is None
    assert contract_of(ask(contracts, strike="24500")).freeze is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ExpiryRule.WEEKLY, NEAR),
        (ExpiryRule.NEXT_WEEKLY, NEXT),
        (ExpiryRule.MONTHLY, NEAR),
        (ExpiryRule.NEXT_MONTHLY, LAST),
        (NEXT, NEXT),
    ],
)
def test_each_rule_picks_its_expiry(
    contracts: IndexedContracts, rule: ExpiryRule | date, expected: date
) -> None:
    assert contract_of(ask(contracts, expiry=rule)).expiry == expected


def test_an_expiry_is_left_at_its_session_end(contracts: IndexedContracts) -> None:
    end = session_end(NEAR)
    assert contract_of(ask(contracts, now=end - timedelta(seconds=1))).expiry == NEAR
    assert contract_of(ask(contracts, now=end)).expiry == NEXT
    assert contract_of(ask(contracts, expiry=ExpiryRule.MONTHLY, now=end)).expiry == LAST
    denial = denial_of(ask(contracts, expiry=NEAR, now=end))
    assert denial.code == "unknown_expiry"
    assert "has ended" in denial.reason


def test_a_stock_on_both_exchanges_never_gets_the_others_expiry(contracts: IndexedContracts) -> None:
    default = contract_of(ask(contracts, "RELIANCE", "1500", expiry=ExpiryRule.MONTHLY))
    assert (default.exchange, default.expiry) == (Exchange.NSE, NSE_STOCK)
    assert default.underlying_ticker is None
    bse = contract_of(ask(contracts, "RELIANCE", "1500", expiry=ExpiryRule.MONTHLY, exchange=Exchange.BSE))
    assert (bse.exchange, bse.expiry) == (Exchange.BSE, BSE_STOCK)
    assert bse.underlying_ticker == "BSE:RELIANCE-A"
    assert denial_of(ask(contracts, "RELIANCE", "1500", expiry=BSE_STOCK)).code == "unknown_expiry"
    later = ask(contracts, "RELIANCE", "1500", expiry=NSE_STOCK, exchange=Exchange.BSE)
    assert denial_of(later).code == "unknown_expiry"


def test_bse_is_taken_when_only_bse_lists_it(contracts: IndexedContracts) -> None:
    answer = ask(contracts, "ITC", "407.5", OptionType.PE, ExpiryRule.MONTHLY)
    assert contract_of(answer).ticker == "BSE:ITC26NOV407.5PE"
    assert contract_of(answer).strike == Decimal("407.5")
    assert denial_of(ask(contracts, "ITC", "407.5", exchange=Exchange.NSE)).code == "unknown_symbol"


def test_the_explanation_names_exchange_expiry_and_strike(contracts: IndexedContracts) -> None:
    answer = ask(contracts)
    assert isinstance(answer, Resolved)
    assert answer.explanation == (
        "NSE as the default, since it lists NIFTY; WEEKLY means the nearest listed expiry: Tue 24 Nov 2026; "
        "strike 24450 CE as asked."
    )


@pytest.mark.parametrize("strike", ["24475", "24450.00001", "0.00001", "1E+40", "-24450"])
def test_an_unknown_strike_is_denied_with_the_nearest_ones(contracts: IndexedContracts, strike: str) -> None:
    denial = denial_of(ask(contracts, strike=strike))
    assert denial.code == "unknown_strike"
    assert denial.reason.endswith("the nearest listed are 24450, 24500, 24550")


def test_an_unknown_symbol_is_denied_by_name(contracts: IndexedContracts) -> None:
    denial = denial_of(ask(contracts, "NIFTTY"))
    assert denial.code == "unknown_symbol"
    assert "NIFTTY" in denial.reason


@pytest.fixture(scope="module", params=["2025-10-24", "2025-11-10"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[IndexedContracts, datetime, list[list[str]]]]:
    source = MASTERS / f"BSE_FO.{request.param}.csv"
    if not source.exists():
        pytest.skip("the real symbol-master files do not lie beside this checkout")
    directory = tmp_path_factory.mktemp("real")
    content = source.read_bytes()
    report = build_from_bytes(directory, {"BSE_FO.csv": content})
    assert report.skipped == 0
    rows = [r for r in csv.reader(content.decode().splitlines()) if r[2] in ("14", "15")]
    assert report.rows == len(rows)
    index = IndexedContracts(directory, StillClock())
    yield index, datetime.fromisoformat(f"{request.param}T04:00+00:00"), rows
    index.close()


Real = tuple[IndexedContracts, datetime, list[list[str]]]


def test_every_real_option_resolves_to_its_own_ticker(real: Real) -> None:
    index, now, rows = real
    for row in rows:
        expiry = datetime.fromtimestamp(int(row[8]), IST).date()
        contract = contract_of(
            index.resolve(row[13], Decimal(row[15]), OptionType(row[16]), expiry, Exchange.BSE, now)
        )
        assert contract.ticker == row[9]
        assert (contract.lot, contract.tick) == (int(row[3]), Decimal(row[4]))
        assert contract.is_stock == (row[2] == "15")


@pytest.mark.parametrize(
    ("rule", "today", "expected"),
    [
        (ExpiryRule.MONTHLY, date(2025, 12, 20), date(2025, 12, 24)),  # Thursday 25th is Christmas
        (ExpiryRule.MONTHLY, date(2025, 12, 24), date(2025, 12, 24)),
        (ExpiryRule.WEEKLY, date(2025, 12, 23), date(2025, 12, 24)),
    ],
)
def test_a_real_week_moved_by_a_holiday(real: Real, rule: ExpiryRule, today: date, expected: date) -> None:
    index, _, rows = real
    strike = next(
        r for r in rows if r[13] == "SENSEX" and datetime.fromtimestamp(int(r[8]), IST).date() == expected
    )
    now = datetime.combine(today, datetime.min.time(), IST) + timedelta(hours=10)
    found = index.resolve("SENSEX", Decimal(strike[15]), OptionType(strike[16]), rule, None, now)
    assert contract_of(found).expiry == expected
    assert contract_of(found).ticker == strike[9]


def test_a_weekly_moved_by_a_holiday_before_the_real_files(tmp_path: Path) -> None:
    """01-Oct-2025 (Wednesday: Thursday was Gandhi Jayanti) is a weekly, and the month ends on the 30th."""
    days = [(date(2025, 9, 25), True), (date(2025, 10, 1), False), (date(2025, 10, 9), False)]
    days += [(date(2025, 10, 30), True)]
    rows = [
        option_row("SENSEX", day, "81000", "CE", exchange="BSE", monthly=monthly, token=n)
        for n, (day, monthly) in enumerate(days, 1)
    ]
    build_from_bytes(tmp_path, {"BSE_FO.csv": as_csv(rows)})
    index = IndexedContracts(tmp_path, StillClock())
    now = datetime(2025, 9, 26, 5, tzinfo=UTC)
    weekly = contract_of(ask(index, "SENSEX", "81000", now=now))
    assert (weekly.expiry, weekly.ticker) == (date(2025, 10, 1), "BSE:SENSEX25O0181000CE")
    monthly = contract_of(ask(index, "SENSEX", "81000", expiry=ExpiryRule.MONTHLY, now=now))
    assert monthly.expiry == date(2025, 10, 30)
    index.close()
