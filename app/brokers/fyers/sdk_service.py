"""From the SDK's calls to requests of one exchange."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from app.brokers.fyers.client import Exchange, Reply


class ExchangeService:
    """What the SDK calls instead of its own FyersServiceSync."""

    def __init__(self, exchange: Exchange, before_send: Callable[[], None] | None) -> None:
        self._exchange = exchange
        self._before_send = before_send

    def get_call(
        self, api: str, header: str, data: Mapping[str, Any] | None = None, data_flag: bool = False
    ) -> Reply:
        query = f"?{urlencode(data)}" if data else ""
        return self._call("GET", api + query, header, None, data_flag)

    def post_call(self, api: str, header: str, data: object = None, data_flag: bool = False) -> Reply:
        return self._call("POST", api, header, _json(data), data_flag)

    def patch_call(self, api: str, header: str, data: object) -> Reply:
        return self._call("PATCH", api, header, _json(data))

    def delete_call(self, api: str, header: str, data: object) -> Reply:
        return self._call("DELETE", api, header, _json(data))

    def _call(self, method: str, api: str, header: str, body: bytes | None, data_flag: bool = False) -> Reply:
        client = self._exchange.client
        base = client.data_url if data_flag else client.api_url
        headers = {"Authorization": header, "Content-Type": "application/json", "version": "3"}
        return self._exchange.request(
            method, base + api, body=body, headers=headers, before_send=self._before_send
        )


def _json(data: object) -> bytes:
    """Raises TypeError or ValueError (Decimal, NaN) before anything is connected."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
