"""A database restored from a backup: what the broker knows and it does not is adopted, and nothing is placed twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from app.domain.alert import Product
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NotReconciled
from app.service.control import Control
from tests.fyers_sim import FyersSim, nifty_ticker
from tests.wire_desk import LOT, MORNING, SCOPE, Desks, count_contracts, simulated

pytestmark = pytest.mark.slow

KEYED, KEYLESS = 20, 2
Restore = Callable[[], str]


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    with simulated(tmp_path) as made:
        yield made


@pytest.fixture
def desks(tmp_path: Path, sim: FyersSim) -> Iterator[Desks]:
    with Desks(tmp_path, sim) as made:
        yield made


def backed_up_file(url: str) -> Restore:
    """A copy of SQLite's file, while nobody writes; its restore is a new file."""
    path = Path(make_url(url).database or "")
    copy, back = path.with_suffix(".backup"), path.with_name("restored.sqlite3")
    with create_engine(url).connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    shutil.copy(path, copy)

    def restore() -> str:
        shutil.copy(copy, back)
        return f"sqlite:///{back}"

    return restore


def backed_up_database(url: str) -> Restore:
    """A template copy in Postgres; its restore is a copy of the copy."""
    name = make_url(url).database
    engine = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")

    def copied(source: str | None, to: str) -> None:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {to} TEMPLATE {source}"))

    copied(name, f"{name}_backup")

    def restore() -> str:
        copied(f"{name}_backup", f"{name}_restored")
        engine.dispose()
        return make_url(url).set(database=f"{name}_restored").render_as_string(hide_password=False)

    return restore


def strike_of(number: int) -> int:
    return 24000 + 50 * number


@pytest.mark.parametrize("database_url", ["sqlite_url", "postgres_url"], indirect=True)
def test_restore_drill(
    database_url: str, desks: Desks, sim: FyersSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_contracts(monkeypatch)
    before = desks.start(url=database_url)
    old = before.bought(key="of before", product=Product.MARGIN)
    before.pass_on()
    before.store.close()
    back_up = backed_up_file if database_url.startswith("sqlite") else backed_up_database
    restore = back_up(database_url)

    before = desks.start(url=database_url)
    alerts = [
        before.an_alert(
            key=f"key {n}", strike=strike_of(n), lots=1 + n % 3, client=("default", "other")[n % 2]
        )
        for n in range(KEYED)
    ]
    lost = {before.deliver(alert).order.tag: alert for alert in alerts}
    keyless = [
        before.bought(strike=24000, product=Product.MARGIN),
        before.bought(strike=24050, product=Product.MARGIN),
    ]
    assert len(lost) == KEYED
    before.close()
    placed = len(sim.ledger.placed())
    assert placed == 1 + KEYED + KEYLESS

    desk = desks.start(url=restore(), first_pass=True)
    assert [o.id for o in desk.rows()] == [old.id], "the backup must be older than the orders"
    sim.advance(1)
    desk.pass_on()
    desk.pass_on(1)
    assert desk.state() is TradingState.HALTED
    assert sum("unknown_orders" in page for page in desk.notifier.pages) == 1

    adopted = {o.tag: o for o in desk.rows() if o.id != old.id}
    assert set(adopted) == set(lost) | {o.tag for o in keyless}
    for tag, alert in lost.items():
        row = adopted[tag]
        assert (row.ticker, row.strike, row.option_type) == (
            nifty_ticker(MORNING.date(), strike=int(alert.strike)),
            alert.strike,
            alert.option_type,
        )
        assert (row.quantity, row.filled_quantity, row.status) == ((alert.lots or 0) * LOT,) * 2 + (
            Status.FILLED,
        )
    with desk.store.read() as tx:
        assert {s.tag for s in tx.strangers(SCOPE)} == {o.tag for o in keyless}
        held = {(h.ticker, h.product): h.net_quantity for h in tx.holdings(SCOPE, None)}
    assert held[(keyless[0].ticker, Product.MARGIN)] == LOT
    assert len(held) == 1 + KEYED + KEYLESS
    desk.assert_caps()

    refused = desk.alert(strike=24900)
    assert (refused.status, refused.code) == (Status.DENIED, "trading_state")
    for alert in alerts[:3]:
        assert desk.deliver(alert).replayed
    assert desk.state() is TradingState.HALTED

    Control(desk.desk).set_state(TradingState.ACTIVE, "operator", "looked at the book")
    with desk.store.read() as tx:
        assert tx.strangers(SCOPE, acknowledged=False) == ()
    desk.pass_on(60)
    assert desk.state() is TradingState.ACTIVE, "who has looked is not halted again"
    for tag, alert in lost.items():
        answer = desk.deliver(alert)
        assert (answer.replayed, answer.order.tag, answer.order.status) == (True, tag, Status.FILLED)
        assert answer.order.client == alert.client
        again = desk.deliver(alert)
        assert (again.replayed, again.order) == (True, answer.order)
    assert len(sim.ledger.placed()) == placed

    for tag, alert in list(lost.items())[:2]:
        out = desk.alert("EXIT", strike=alert.strike, client=alert.client)
        assert (out.status, out.ticker, out.quantity) == (
            Status.ACCEPTED,
            adopted[tag].ticker,
            adopted[tag].quantity,
        )
    assert len(sim.ledger.placed()) == placed + 2


def test_an_exit_of_what_only_the_restored_rows_hold(tmp_path: Path, desks: Desks) -> None:
    """Entry and exit both after the backup: nothing is held, and nothing is sold a second time."""
    other = tmp_path / "other"
    other.mkdir()
    first = desks.start(directory=other)
    entry, out = first.alert(key="in"), first.alert("EXIT", key="out")
    assert (entry.status, out.status) == (Status.ACCEPTED, Status.ACCEPTED)
    desk = desks.start()
    desk.pass_on()
    desk.pass_on(1)
    Control(desk.desk).set_state(TradingState.ACTIVE, "operator", "looked")
    with desk.store.read() as tx:
        assert tx.holdings(SCOPE, None) == ()
    no = desk.alert("EXIT", key="another")
    assert (no.status, no.code) == (Status.DENIED, "nothing_to_exit")
    assert len(desk.sold()) == 1


def test_rows_of_another_prefix_are_strangers_and_never_adopted(tmp_path: Path, desks: Desks) -> None:
    """Two deployments on one account: each leaves the other's orders alone, and a start shows them to a person."""
    other = tmp_path / "other"
    other.mkdir()
    theirs = desks.start(directory=other, tag_prefix="THEM")
    placed = theirs.bought()
    desk = desks.start()
    desk.pass_on()
    assert desk.rows() == ()
    with desk.store.read() as tx:
        assert [s.tag for s in tx.strangers(SCOPE)] == [placed.tag]
    assert desk.state() is TradingState.HALTED


def test_an_exit_sent_again_before_the_first_pass_sells_nothing_twice(
    tmp_path: Path, desks: Desks, sqlite_url: str
) -> None:
    """Exits do not wait for the first pass; but this one's own order stands in the book that it reads."""
    first = desks.start(url=sqlite_url)
    first.pass_on()
    first.bought(lots=2)
    first.pass_on(1)
    first.store.close()
    restore = backed_up_file(sqlite_url)
    first = desks.start(url=sqlite_url)
    alert = first.an_alert("EXIT", key="half", qty=LOT)
    out = first.deliver(alert).order
    assert (out.status, first.net()) == (Status.ACCEPTED, LOT)

    desk = desks.start(url=restore(), first_pass=True, directory=tmp_path)
    with pytest.raises(NotReconciled):
        desk.deliver(alert)
    assert desk.net() == LOT
    desk.pass_on(1)
    Control(desk.desk).set_state(TradingState.ACTIVE, "operator", "looked")
    again = desk.deliver(alert)
    assert (again.replayed, again.order.broker_order_id) == (True, out.broker_order_id)
    rest = desk.alert("EXIT")
    assert (rest.quantity, desk.net(), len(desk.sold())) == (LOT, 0, 2)
