"""What a message of the order websocket means, and which addresses it may have."""

from __future__ import annotations

import pytest

from app.brokers.fyers.order_messages import meaning
from app.settings import load
from app.settings.guard import GuardSettings


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (b"pong", "pong"),
        (b'{"orders": {"id": "1"}, "s": "ok"}', "hint"),
        (b'{"trades": {}, "s": "ok"}', "hint"),
        (b'{"positions": {}, "s": "ok"}', "hint"),
        (b'{"code": 1605, "message": "Successfully subscribed", "s": "ok"}', "subscribed"),
        (b'{"code": -99, "message": "Token is expired"}', "refused"),
        (b'{"login": {}}', "other"),
        (b'{"code": "x"}', "other"),
        (b"", "rubbish"),
        (b"7", "rubbish"),
        (b"\xff", "rubbish"),
        (b"[" * 60_000, "rubbish"),
    ],
)
def test_what_a_message_means(message: bytes, word: str) -> None:
    assert meaning(message) == word


@pytest.mark.parametrize(
    "url", ["http://x/trade", "ws://socket.fyers.in/trade/v3", "ws://127.0.0.1.evil.example/", "wss://"]
)
def test_an_address_that_would_show_the_token_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="fyers_order_socket_url"):
        GuardSettings.model_validate({"fyers_order_socket_url": url})


@pytest.mark.parametrize("url", ["", "wss://socket.fyers.in/trade/v3", "ws://127.0.0.1:1/trade/v3"])
def test_the_addresses_that_are_taken(url: str) -> None:
    assert load(fyers_order_socket_url=url).fyers_order_socket_url == url
