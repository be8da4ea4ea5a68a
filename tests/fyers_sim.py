"""A Fyers v3 broker on a loopback port, for tests: real HTTP, a real book, and every way in which an answer
can be lost.

    with FyersSim() as sim:
        sim.faults.next_order("hang_created", seconds=10)
        ...                                   # the service talks to sim.base_url, sim.data_url and sim.master_url
        assert len(sim.ledger.placed()) == 1

From the command line: `python -m tests.fyers_sim --port 0 --ledger PATH [--masters DIR] [--now ISO]
[--no-rate-limits] ...`, steered over HTTP (`tests/simulator/admin.py`). Any number of clients may talk to one
simulator.

What it stands on: each part of `tests/simulator/` marks its facts as documented or seen live (D), told by one
or two third parties (M), or assumed (A). The names of the faults are in `tests/simulator/faults.py`.

The order WebSocket is `tests/simulator/order_socket.py`, on a port of its own.

Left out: options-chain-v3, history, holdings, multi-order, multileg, async, GTT and smart orders, position
conversion (POST /positions), the margin calculator, the data WebSocket, TLS. Margins are not computed: an RMS
rejection is a fault or a fill mode. A stop price on the wrong side of the LTP is not refused.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.leak_watch import GIVEN_TOKEN
from tests.simulator import admin, command
from tests.simulator.api import Api, endpoint_of
from tests.simulator.auth import Tokens
from tests.simulator.clock import Clock, SimClock, ist_date, real_clock
from tests.simulator.exchange import FILL_MODES, Exchange
from tests.simulator.faults import Fault, Faults
from tests.simulator.hand import MarketHand
from tests.simulator.ledger import Ledger, read_ledger
from tests.simulator.limits import RateLimits
from tests.simulator.masters import Masters, masters_of_directory
from tests.simulator.money import dec
from tests.simulator.quotes import Price, Quote, Quotes
from tests.simulator.sample import nifty_ticker, sample_masters
from tests.simulator.server import Server
from tests.simulator.wire import Reply, Request

__all__ = ["FyersSim", "SimClock", "nifty_ticker", "read_ledger", "sample_masters"]


class FyersSim(MarketHand):
    """The simulator; a context manager. `close` ends every connection, also the hanging ones."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ledger: Path | str | None = None,
        masters: Mapping[str, bytes] | Path | str | None = None,
        tokens: Collection[str] = ("t", GIVEN_TOKEN),
        app_id: str = "SIMAPP-200",
        secret: str = "simsecret",
        pin: str = "1234",
        client_id: str = "XS00001",
        fill_mode: str = "instant",
        rate_limits: bool = True,
        default_quote: tuple[Price, Price, Price] | None = ("100.00", "99.95", "100.05"),
        freeze: Mapping[str, int] | None = None,
        clock: Clock = real_clock,
        fsync: bool = True,
        log_reads: bool = False,
    ) -> None:
        """Start serving.

        `masters` None makes a small sample for the clock's date; `default_quote` is (lp, bid, ask) of tickers
        without their own; `freeze` maps underlyings to freeze quantities; without `ledger` a temporary file
        is used and removed.
        """
        self.clock = clock
        self._temporary = ledger is None
        self.ledger = Ledger(_ledger_path(ledger), fsync=fsync, log_reads=log_reads)
        self._masters = Masters(_files(masters, clock), clock, freeze)
        self.quotes = Quotes(clock, self._masters, _quote(default_quote))
        self.exchange = Exchange(clock, self.quotes, client_id)
        self.tokens = Tokens(clock, app_id, secret, pin, client_id, set(tokens))
        self.limits = RateLimits(clock, rate_limits)
        self.faults = Faults()
        self.api = Api(self.exchange, self.tokens, self.limits, self.ledger, self._masters)
        self.fill_mode = fill_mode
        self.server = Server(self, host, port)
        self.root_url = f"http://{self.server.address[0]}:{self.server.address[1]}"
        self.base_url = f"{self.root_url}/api/v3"
        self.data_url = f"{self.root_url}/data"
        self.master_url = f"{self.root_url}/master"
        self.admin_url = f"{self.root_url}/__sim__"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the ledger stays readable."""
        self.server.close()
        self.ledger.close()
        if self._temporary:
            self.ledger.path.unlink(missing_ok=True)

    # --- what the server asks -------------------------------------------------------------------------------

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        return None if path.startswith(admin.PREFIX) else self.faults.take(endpoint_of(method, path))

    def respond(self, request: Request, fault: Fault | None) -> Reply:
        """The reply to one request."""
        if request.path.startswith(admin.PREFIX):
            return admin.answer(self, request)
        return self.api.answer(request, endpoint_of(request.method, request.path), fault)

    # --- switches -------------------------------------------------------------------------------------------

    @property
    def masters(self) -> Masters:
        """The served files, name to bytes; may be changed in place or replaced by a mapping."""
        return self._masters

    @masters.setter
    def masters(self, files: Mapping[str, bytes]) -> None:
        with self.exchange.lock:
            self._masters.clear()
            self._masters.update(files)

    @property
    def fill_mode(self) -> str:
        """One of instant | rest | transit | partial:N | reject_async."""
        return self.exchange.fill_mode

    @fill_mode.setter
    def fill_mode(self, mode: str) -> None:
        name, _, number = mode.partition(":")
        if mode not in FILL_MODES and not (name == "partial" and number.isdigit()):
            raise ValueError(f"expected {', '.join(FILL_MODES)} or partial:N, was {mode!r}")
        self.exchange.fill_mode = mode

    @property
    def overlay_mode(self) -> str:
        """Either shown (stop and target sit on the position) | ignored (accepted, but never there)."""
        return self.exchange.overlay_mode

    @overlay_mode.setter
    def overlay_mode(self, mode: str) -> None:
        self.exchange.overlay_mode = mode

    @property
    def bracket_mode(self) -> str:
        """Either accepted | refused: whether BO and CO still exist."""
        return self.api.bracket_mode

    @bracket_mode.setter
    def bracket_mode(self, mode: str) -> None:
        self.api.bracket_mode = mode

    @property
    def order_permission(self) -> bool:
        """False: every order operation is refused with -50 (app, address or permission), reads go on."""
        return self.api.order_permission

    @order_permission.setter
    def order_permission(self, granted: bool) -> None:
        self.api.order_permission = granted

    @property
    def market_open(self) -> bool | None:
        """What marketStatus says; None: open, or by the clock where hours are enforced."""
        return self.quotes.market_open

    @market_open.setter
    def market_open(self, is_open: bool | None) -> None:
        self.quotes.market_open = is_open

    @property
    def enforce_hours(self) -> bool:
        """True: an order while the market is closed becomes status 5."""
        return self.exchange.enforce_hours

    @enforce_hours.setter
    def enforce_hours(self, enforced: bool) -> None:
        self.exchange.enforce_hours = self.quotes.by_clock = enforced

    @property
    def rate_limits(self) -> bool:
        """Whether calls are limited; the numbers are in `limits`."""
        return self.limits.enabled

    @rate_limits.setter
    def rate_limits(self, enabled: bool) -> None:
        self.limits.enabled = enabled

    # --- tokens and wire ------------------------------------------------------------------------------------

    def issue_auth_code(self) -> str:
        """A single-use code, as the login page's redirect carries it."""
        return self.tokens.issue_auth_code()

    def expire_tokens(self) -> None:
        """Every token stops working."""
        self.tokens.expire_all()

    def revoke_token(self, token: str) -> None:
        """One token stops working."""
        self.tokens.revoke(token)

    def release_hangs(self) -> None:
        """End every wait of a hang or slow fault now; a hang closes its connection without an answer."""
        self.server.gate.release()

    def drop_connections(self) -> None:
        """Close every open connection from the server's side."""
        self.server.drop_connections()

    def advance(self, seconds: float) -> None:
        """Move the clock, where it is a SimClock."""
        if not isinstance(self.clock, SimClock):
            raise TypeError(f"expected a SimClock, was {self.clock!r}")
        self.clock.advance(seconds)


def _quote(prices: tuple[Price, Price, Price] | None) -> Quote | None:
    if prices is None:
        return None
    last, bid, ask = prices
    return Quote(dec(last), dec(bid), dec(ask))


def _ledger_path(given: Path | str | None) -> Path:
    if given is not None:
        return Path(given)
    handle, name = tempfile.mkstemp(prefix="fyers-sim-", suffix=".jsonl")
    os.close(handle)
    return Path(name)


def _files(given: Mapping[str, bytes] | Path | str | None, clock: Clock) -> Mapping[str, bytes]:
    if given is None:
        return sample_masters(ist_date(clock()))
    return given if isinstance(given, Mapping) else masters_of_directory(Path(given))


if __name__ == "__main__":
    sys.exit(command.run(FyersSim))
