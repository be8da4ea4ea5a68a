"""The brokers that the contract tests run over, each with a hand on its market."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic

from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import StaticTokens
from app.brokers.paper.broker import PaperBroker
from app.domain.deadline import Deadline
from app.domain.order import OrderKind, Ticket
from app.service.exchanger import Exchanger
from app.service.ports import Broker
from tests.builders import a_contract
from tests.fakes import FakeBroker, FakeClock
from tests.fyers_sim import FyersSim, SimClock, nifty_ticker
from tests.unit import paper_desk

OPEN = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # 10:00 IST on a Wednesday
APP_ID = "SIMAPP-200"


class RealTime:
    """Wall clock of the simulator's day, real seconds for deadlines."""

    def now(self) -> datetime:
        return OPEN

    def monotonic(self) -> float:
        return monotonic()


@dataclass
class World:
    """A broker, a contract that trades at 100, and what happens when nobody calls."""

    broker: Broker
    ticker: str
    settle: Callable[[], None]
    """Let time pass until a market order has filled."""
    price: Callable[[Decimal], None]
    """The contract trades there now, and whatever rests there or was triggered by it has filled."""

    @contextmanager
    def talk(self) -> Iterator[Exchanger]:
        with self.broker.exchange(Deadline(monotonic() + 60)) as exchanger:
            yield exchanger


def client_of(sim: FyersSim) -> FyersClient:
    return FyersClient(sim.base_url, sim.data_url, connect_timeout_s=30, read_timeout_s=30)


def fyers_on(sim: FyersSim, token: str = "t") -> FyersBroker:
    clock = RealTime()
    return FyersBroker(client_of(sim), APP_ID, StaticTokens(token, clock.now()), clock)


@contextmanager
def fyers(_: Path) -> Iterator[World]:
    clock, ticker = SimClock(OPEN, running=False), nifty_ticker(OPEN.date())

    def move(price: Decimal) -> None:
        """The simulator triggers stops by hand alone, a bracket's before an overlay's."""
        clock.advance(2)
        sim.set_quote(ticker, price)
        sim.match()
        for product in ("INTRADAY", "BO"):
            position = f"{ticker}-{product}"
            if any(p["id"] == position and p["netQty"] for p in sim.positions()):
                sim.trigger_stop(position)

    with FyersSim(clock=clock, rate_limits=False) as sim:
        broker = fyers_on(sim)
        try:
            yield World(broker, ticker, lambda: clock.advance(2), move)
        finally:
            broker.close()


@contextmanager
def paper(directory: Path) -> Iterator[World]:
    clock, now = paper_desk.Clock(), Decimal(100)

    def price(ticker: str, _: datetime) -> Decimal | None:
        return now if ticker == paper_desk.CALL else None

    def move(to: Decimal) -> None:
        nonlocal now
        now = to
        wait()

    def wait() -> None:
        clock.at += timedelta(seconds=2)

    database = paper_desk.SqliteFile(directory / "paper.db")
    yield World(PaperBroker(database, clock, "paper", price_override=price), paper_desk.CALL, wait, move)


class Resting(FakeBroker):
    """A limit order waits for its price, which nobody makes here."""

    def take(self, ticket: Ticket) -> str:
        self.fills = ticket.kind is not OrderKind.LIMIT
        return super().take(ticket)


@contextmanager
def fake(_: Path) -> Iterator[World]:
    yield World(Resting(FakeClock()), a_contract().ticker, lambda: None, lambda _: None)


BROKERS = {"fyers": fyers, "paper": paper}
