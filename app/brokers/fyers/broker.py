"""Fyers as a Broker: the transport's calls, judged by the wire's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

from app.brokers.fyers import rows, wire
from app.brokers.fyers.client import Exchange, FyersClient, Reply, TransportError
from app.brokers.fyers.login import given_tokens
from app.brokers.fyers.not_allowed import SeenAddress, explained, seen_address
from app.brokers.fyers.sdk import Calls
from app.brokers.fyers.wire import Change
from app.domain.alert import Exchange as IndianExchange
from app.domain.deadline import Deadline
from app.domain.order import Ticket
from app.domain.outcome import NotSent, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed
from app.service.ports import Broker, Clock, Tokens
from app.service.ready import Unready
from app.service.records import BookOrder, Position, Quote, Trade
from app.settings import Settings

BeforeSend = Callable[[], NotSent | None]
_TOO_MANY = 429
_READ_CODES = {_TOO_MANY: "broker_rate_limited", **dict.fromkeys((400, 401, 403, 404), "broker_refused")}
"""A read that was answered in full, and with a no: the broker is well. All else is the error's usual code."""
_NO_TOKEN = NotSent("token_expired", "there is no valid Fyers access token: log in at /fyers/login")


class _StoppedError(Exception):
    """Carries the last check's no through the transport, which writes nothing then."""

    def __init__(self, outcome: NotSent) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class FyersBroker:
    """Implements service.ports.Broker. `app_id` includes its suffix (`...-200`)."""

    name = "fyers"

    def __init__(
        self,
        client: FyersClient,
        app_id: str,
        tokens: Tokens,
        clock: Clock,
        address: SeenAddress | None = None,
    ) -> None:
        self._client, self._app_id, self._tokens, self._clock = client, app_id, tokens, clock
        self._address = address

    @contextmanager
    def exchange(
        self,
        deadline: Deadline,
        connect_by: Deadline | None = None,
        *,
        once: bool = False,  # noqa: ARG002 - it never reads twice
    ) -> Iterator[FyersExchanger]:
        token = self._tokens.current(self._clock.now())
        authorization = f"{self._app_id}:{token}" if token else ""
        with self._client.exchange(deadline, authorization, connect_by) as exchange:
            yield FyersExchanger(exchange if token else None, deadline, self._app_id, self._address)

    def ready(self) -> str | None:
        if self._tokens.current(self._clock.now()) is None:
            return Unready(_NO_TOKEN.message, _NO_TOKEN.code)
        return None

    def close(self) -> None:
        """Close the idle connections."""
        self._client.close()


class FyersExchanger:
    """One conversation. `exchange` is None when there is no token: then nothing is asked of the network."""

    def __init__(
        self,
        exchange: Exchange | None,
        deadline: Deadline,
        app_id: str = "",
        address: SeenAddress | None = None,
    ) -> None:
        self._exchange, self._deadline, self._app_id, self._address = exchange, deadline, app_id, address

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        wanted = list(dict.fromkeys(tickers))
        found: dict[str, Quote] = {}
        for start in range(0, len(wanted), wire.QUOTES_PER_CALL):
            part = wanted[start : start + wire.QUOTES_PER_CALL]
            symbols = {"symbols": ",".join(part)}
            reply = self._read("quotes", lambda calls, symbols=symbols: calls.quotes(symbols))  # type: ignore[misc]
            found |= rows.quotes_of(reply.status, reply.body, part)
        return found

    def order_book(self) -> tuple[BookOrder, ...]:
        reply = self._read("order book", lambda calls: calls.orderbook())
        return rows.book_of(reply.status, reply.body)

    def positions(self) -> tuple[Position, ...]:
        reply = self._read("positions", lambda calls: calls.positions())
        return rows.positions_of(reply.status, reply.body)

    def trades(self) -> tuple[Trade, ...]:
        reply = self._read("trade book", lambda calls: calls.tradebook())
        return rows.trades_of(reply.status, reply.body)

    def market_open(self, exchange: IndianExchange) -> bool | None:
        reply = self._read("market status", lambda calls: calls.market_status())
        return rows.market_open(reply.status, reply.body, exchange)

    def place(self, ticket: Ticket, before_send: BeforeSend, *, reduces: bool = False) -> Outcome:  # noqa: ARG002 - the guard's
        fields = wire.order_fields(ticket)
        return self._change(Change.PLACE, lambda calls: calls.place_order(fields), before_send)

    def cancel(self, broker_order_id: str) -> Outcome:
        if not broker_order_id:
            return NotSent("no_order_id", "expected the id of the order to cancel")
        return self._change(Change.CANCEL, lambda calls: calls.cancel_order({"id": broker_order_id}))

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        fields = wire.protection_fields(position_id, stop_distance, target_distance, quantity)
        work: Callable[[Calls], Reply] = lambda calls: calls.attach_position_legs(fields)  # noqa: E731
        return self._change(Change.PROTECT, work, subject=position_id)

    def room_for_exit(self) -> NotSent | None:
        return None  # the budget is the guard's

    def close_position(self, position_id: str, before_send: BeforeSend) -> Outcome:
        if not position_id:  # Fyers takes an empty choice for "all positions"
            return NotSent("no_position_id", "expected the id of the position to close")
        fields = {"id": position_id}
        return self._change(Change.CLOSE, lambda calls: calls.exit_positions(fields), before_send)

    def _read(self, what: str, call: Callable[[Calls], Reply]) -> Reply:
        """A whole answer with 200; everything else is BrokerReadFailed, with the wait that Fyers asked for."""
        if self._exchange is None:
            raise BrokerReadFailed(_NO_TOKEN.message, code=_NO_TOKEN.code)
        try:
            reply = call(self._exchange.sdk())
        except TransportError as error:
            raise BrokerReadFailed(f"the {what} could not be read: {error}") from error
        if reply.status != 200:  # noqa: PLR2004 - HTTP's OK
            retry = _whole_seconds(reply.headers.get("Retry-After"))
            code = _READ_CODES.get(reply.status)
            raise BrokerReadFailed(
                f"Fyers answered {reply.status} to the {what}", code=code, retry_after_s=retry
            )
        return reply

    def _change(
        self,
        change: Change,
        call: Callable[[Calls], Reply],
        before_send: BeforeSend | None = None,
        subject: str = "",
    ) -> Outcome:
        """One attempt. NotSent only when the count of written bytes is zero."""
        if self._exchange is None:
            return _NO_TOKEN

        def check() -> None:
            stopped = before_send() if before_send is not None else None
            if stopped is not None:
                raise _StoppedError(stopped)

        try:
            reply = call(self._exchange.sdk(check))
        except _StoppedError as stop:
            return stop.outcome
        except TransportError as error:
            if error.bytes_written == 0:
                code = "out_of_time" if error.timed_out else "broker_unreachable"
                return NotSent(code, f"nothing was sent: {error}")
            return Unknown(f"no answer: {error}", sent_late=self._is_late(error.written_at))
        outcome = wire.outcome_of(change, reply.status, reply.body, subject)
        is_429 = reply.status == _TOO_MANY
        retry = _whole_seconds(reply.headers.get("Retry-After")) if is_429 else None
        if isinstance(outcome, Refused):
            return explained(replace(outcome, retry_after_s=retry), self._app_id, self._address)
        if isinstance(
            outcome, Unknown
        ):  # the status alone asks to wait; the body's words are not known in advance
            outcome = replace(outcome, rate_limited=is_429, retry_after_s=retry)
        return replace(outcome, sent_late=self._is_late(reply.written_at))

    def _is_late(self, written_at: float | None) -> bool:
        return written_at is not None and written_at > self._deadline.at


def _whole_seconds(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else None  # noqa: PLR2004


def fyers_broker(settings: Settings, clock: Clock, tokens: Tokens | None = None) -> tuple[Broker, Tokens]:
    """The live broker and its tokens, without `tokens` the one from settings. Loads the SDK now; asks no network."""
    client = FyersClient(
        settings.fyers_api_url,
        settings.fyers_data_url,
        connect_timeout_s=settings.fyers_connect_timeout,
        read_timeout_s=settings.fyers_read_timeout,
    )
    client.load()
    tokens = tokens or given_tokens(settings, clock.now())
    address = seen_address(settings.instance_dir)
    return FyersBroker(client, settings.fyers_app_id, tokens, clock, address), tokens
