"""Fyers' own SDK, kept for its endpoints and request building; its transport is replaced.

Fact (fyers-apiv3 3.2.0, fyersModel.py): every method of FyersModel touches `self.is_async`, `self.header` and
`self.service` and nothing else, and hands back whatever the service's call returned. Its constructor opens two log
files in the working directory, and its service swallows errors into one dict shared by all calls, so neither runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from app.brokers.fyers.client import Reply


class Service(Protocol):
    """What FyersModel calls. `api` is a path below the API's or, with `data_flag`, the data API's base URL."""

    def get_call(
        self, api: str, header: str, data: Mapping[str, Any] | None = None, data_flag: bool = False
    ) -> Reply: ...

    def post_call(self, api: str, header: str, data: object = None, data_flag: bool = False) -> Reply: ...

    def patch_call(self, api: str, header: str, data: object) -> Reply: ...

    def delete_call(self, api: str, header: str, data: object) -> Reply: ...


class Calls(Protocol):
    """The SDK's methods this project uses; each returns a Reply or raises TransportError. `data` as Fyers documents it."""

    def get_profile(self) -> Reply: ...
    def funds(self) -> Reply: ...
    def positions(self) -> Reply: ...
    def tradebook(self) -> Reply: ...
    def orderbook(self, data: Mapping[str, Any] | None = None) -> Reply: ...
    def quotes(self, data: Mapping[str, Any]) -> Reply: ...
    def depth(self, data: Mapping[str, Any]) -> Reply: ...
    def market_status(self) -> Reply: ...
    def place_order(self, data: Mapping[str, Any]) -> Reply: ...
    def modify_order(self, data: Mapping[str, Any]) -> Reply: ...
    def cancel_order(self, data: Mapping[str, Any]) -> Reply: ...
    def exit_positions(self, data: Mapping[str, Any]) -> Reply: ...
    def attach_position_legs(self, data: Mapping[str, Any]) -> Reply: ...
    def logout(self) -> Reply: ...


def calls(service: Service, authorization: str) -> Calls:
    """The SDK's methods over `service`. `authorization` is `<app id>:<access token>`."""
    return _build()(service, authorization)


def load() -> None:
    """Import the SDK now (about 0.15 s beside requests): at start, so that the first alert does not pay for it."""
    _build()


@cache
def _build() -> Callable[[Service, str], Calls]:
    from fyers_apiv3.fyersModel import FyersModel

    class FyersCalls(FyersModel):  # type: ignore[misc]  # the SDK has no types
        is_async = False

        def __init__(self, service: Service, authorization: str) -> None:
            # Not the SDK's constructor: it opens log files.
            self.service = service
            self.header = authorization

        def exit_positions(self, data: Mapping[str, Any]) -> Reply:
            """Without data the SDK closes every position of the account; that has to be said, not left out."""
            if not data:
                raise ValueError("exit_positions: expected what to exit, was nothing")
            reply: Reply = super().exit_positions(data)
            return reply

        def quotes_v2(self, data: Mapping[str, Any] | None = None) -> Reply:
            """A POST, which the broker's web firewall blocks (fyers-api.md 2.2); `quotes` is a GET."""
            raise NotImplementedError("use quotes")

    return FyersCalls
