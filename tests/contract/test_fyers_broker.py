"""The Fyers adapter against the simulator's faults: what the ledger shows, and what each lost answer becomes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import date
from decimal import Decimal
from time import monotonic

import pytest
from pydantic import SecretStr

from app.brokers.fyers.broker import FyersBroker, FyersExchanger, fyers_broker
from app.brokers.fyers.client import FyersClient, Phase, Reply, TransportError
from app.brokers.fyers.login import StaticTokens
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Mode, Side, Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed
from app.settings import Settings
from tests.contract.brokers import APP_ID, OPEN, RealTime, fyers_on
from tests.fyers_sim import FyersSim, nifty_ticker

TICKER = nifty_ticker(date(2026, 9, 9))
ORDER = Ticket(TICKER, Side.BUY, 65, Product.INTRADAY, "ABCD1", Decimal("15.00"), Decimal("25.00"))


def within(seconds: float) -> Deadline:
    return Deadline(monotonic() + seconds)


def place(broker: FyersBroker, seconds: float = 2) -> Outcome:
    with broker.exchange(within(seconds)) as exchanger:
        return exchanger.place(ORDER, lambda: None)


@pytest.mark.parametrize("side", list(Side))
def test_one_line_in_the_ledger_with_distances(sim: FyersSim, broker: FyersBroker, side: Side) -> None:
    order = Ticket(TICKER, side, 65, Product.INTRADAY, "ABCD1", Decimal("15.00"), Decimal("25.00"))
    with broker.exchange(within(2)) as exchanger:
        exchanger.quotes([TICKER])
        assert isinstance(exchanger.place(order, lambda: None), Accepted)
    (line,) = sim.ledger.placed()
    assert line["app_id"] == APP_ID
    assert line["body"] == {
        "symbol": TICKER,
        "qty": 65,
        "type": 2,
        "side": side.sign,
        "productType": "INTRADAY",
        "limitPrice": 0,
        "stopPrice": 0,
        "disclosedQty": 0,
        "validity": "DAY",
        "offlineOrder": False,
        "stopLoss": 15.0,
        "takeProfit": 25.0,
        "legType": 1,
        "orderTag": "ABCD1",
    }


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "no_ack",
            "html_200",
            "cloudflare_403",
            "html_502",
            "html_503",
            "http_500",
            "truncated",
            "short_body",
        ),
        *("reset", "reset_unread", "disconnect", "no_ack_created", "html_200_created", "truncated_created"),
        *("reset_created", "disconnect_created", "http_500_created"),
    ],
)
def test_a_lost_answer_is_unknown_and_sent_once(sim: FyersSim, broker: FyersBroker, fault: str) -> None:
    sim.faults.next_order(fault)
    assert isinstance(place(broker), Unknown)
    assert len(sim.ledger.orders()) == 1
    assert len(sim.ledger.placed()) == (1 if fault.endswith("_created") else 0)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("fault", ["hang", "hang_created", "slow_created"])
def test_no_answer_by_the_deadline_is_unknown(sim: FyersSim, broker: FyersBroker, fault: str) -> None:
    sim.faults.next_order(fault, seconds=30)
    deadline = within(0.3)
    with broker.exchange(deadline) as exchanger:
        outcome = exchanger.place(ORDER, lambda: None)
    assert monotonic() < deadline.at + 0.1
    assert isinstance(outcome, Unknown)
    assert not outcome.sent_late


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("rate_429", "-429"),
        ("auth_401", "-16"),
        ("algo_restricted", "-50"),
        ("bad_symbol", "-50"),
        ("rms_reject", "-99"),
        ("rms_reject_with_id", "-99"),
    ],
)
def test_the_brokers_own_no_is_refused(sim: FyersSim, broker: FyersBroker, fault: str, code: str) -> None:
    sim.faults.next_order(fault)
    outcome = place(broker)
    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert len(sim.ledger.orders()) == 1


def test_a_broker_that_does_not_listen_is_not_sent(sim: FyersSim) -> None:
    api, data = sim.base_url, sim.data_url
    sim.server.close()
    client = FyersClient(api, data, connect_timeout_s=1, read_timeout_s=1)
    with closing(FyersBroker(client, APP_ID, StaticTokens("t", OPEN), RealTime())) as broker:
        outcome = place(broker)
        assert isinstance(outcome, NotSent)
        assert outcome.code == "broker_unreachable"
        with broker.exchange(within(1)) as exchanger, pytest.raises(BrokerReadFailed):
            exchanger.positions()


def test_a_deadline_that_has_passed_is_not_sent(sim: FyersSim, broker: FyersBroker) -> None:
    outcome = place(broker, -1)
    assert isinstance(outcome, NotSent)
    assert outcome.code == "out_of_time"
    assert sim.ledger.orders() == []


def test_a_check_that_fails_comes_through(sim: FyersSim, broker: FyersBroker) -> None:
    def check() -> NotSent | None:
        raise LookupError("store")

    with broker.exchange(within(2)) as exchanger, pytest.raises(LookupError):
        exchanger.place(ORDER, check)
    assert sim.ledger.orders() == []


def test_without_a_token_nothing_is_asked(sim: FyersSim) -> None:
    with closing(fyers_on(sim, token="")) as broker:
        assert broker.ready() is not None
        outcome = place(broker)
        assert isinstance(outcome, NotSent)
        assert outcome.code == "token_expired"
        with broker.exchange(within(1)) as exchanger, pytest.raises(BrokerReadFailed) as caught:
            exchanger.quotes([TICKER])
    assert caught.value.code == "token_expired"
    assert sim.ledger.counts == {}


@pytest.mark.parametrize("fault", ["html_200", "html_503", "truncated", "rate_429", "auth_401", "no_ack"])
@pytest.mark.parametrize("endpoint", ["GET /orders", "GET /tradebook", "GET /positions", "GET /data/quotes"])
def test_a_spoilt_read_fails(sim: FyersSim, broker: FyersBroker, endpoint: str, fault: str) -> None:
    sim.faults.set(endpoint, fault)
    with broker.exchange(within(2)) as exchanger:
        reads: dict[str, Callable[[], object]] = {
            "GET /orders": exchanger.order_book,
            "GET /tradebook": exchanger.trades,
            "GET /positions": exchanger.positions,
            "GET /data/quotes": lambda: exchanger.quotes([TICKER]),
        }
        with pytest.raises(BrokerReadFailed) as caught:
            reads[endpoint]()
    assert (caught.value.retry_after_s is not None) == (fault == "rate_429")


def test_an_empty_id_never_reaches_the_broker(sim: FyersSim, broker: FyersBroker) -> None:
    """Fyers takes an empty choice for everything."""
    with broker.exchange(within(2)) as exchanger:
        assert isinstance(exchanger.close_position("", lambda: None), NotSent)
        assert isinstance(exchanger.cancel(""), NotSent)
    assert sim.ledger.lines() == []


def test_more_quotes_than_one_call_takes(sim: FyersSim, broker: FyersBroker) -> None:
    with broker.exchange(within(2)) as exchanger:
        assert list(exchanger.quotes([*(f"NSE:NONE{n}" for n in range(60)), TICKER])) == [TICKER]
    assert sim.ledger.counts["GET /data/quotes"] == 2


def test_a_hand_at_the_broker_is_seen_as_nobodys_tag(sim: FyersSim, broker: FyersBroker) -> None:
    sim.place_by_hand(TICKER, 1, 65)
    with broker.exchange(within(2)) as exchanger:
        (row,) = exchanger.order_book()
        (trade,) = exchanger.trades()
    assert (row.tag, row.source) == (None, "W")
    assert (trade.tag, trade.broker_order_id) == (None, row.broker_order_id)
    assert trade.at == OPEN


def test_from_settings(sim: FyersSim) -> None:
    settings = Settings.model_construct(
        trading_mode=Mode.LIVE,
        fyers_app_id=APP_ID,
        fyers_access_token=SecretStr(f"{APP_ID}:t"),
        fyers_api_url=sim.base_url,
        fyers_data_url=sim.data_url,
        fyers_connect_timeout=1.0,
        fyers_read_timeout=1.8,
    )
    broker, tokens = fyers_broker(settings, RealTime())
    assert tokens.current(OPEN) == "t"
    assert broker.ready() is None
    with broker.exchange(within(2)) as exchanger:
        assert list(exchanger.quotes([TICKER])) == [TICKER]
    assert isinstance(broker, FyersBroker)
    broker.close()


class PausedExchange:
    """A transport whose process slept between the last check and the write."""

    def __init__(self, written_at: float) -> None:
        self._written_at = written_at

    def sdk(self, before_send: Callable[[], None]) -> PausedExchange:
        before_send()
        return self

    def place_order(self, _: object) -> Reply:
        answer = b'{"s":"ok","code":1101,"message":"","id":"26090900000001"}'
        return Reply(200, {}, answer, self._written_at)

    def cancel_order(self, _: object) -> Reply:
        raise TransportError("reset", phase=Phase.RECEIVE, bytes_written=9, written_at=self._written_at)


@pytest.mark.parametrize(("written_at", "late"), [(9.9, False), (10.1, True)])
def test_a_write_after_the_deadline_is_said(written_at: float, late: bool) -> None:
    exchanger = FyersExchanger(PausedExchange(written_at), Deadline(10))  # type: ignore[arg-type]
    placed, cancelled = exchanger.place(ORDER, lambda: None), exchanger.cancel("1")
    assert placed == Accepted("26090900000001", "", sent_late=late)
    assert isinstance(cancelled, Unknown)
    assert cancelled.sent_late is late
