"""The broker's order feed, where one is configured, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.domain.order import Mode
from app.service.order_feed import OrderFeed
from app.service.ports import Clock, Tokens
from app.settings import Settings
from app.telemetry.metrics import Metrics

Dependencies = Mapping[str, Callable[[], str | None]]


def order_feed_of(
    settings: Settings, tokens: Tokens | None, clock: Clock, metrics: Metrics
) -> OrderFeed | None:
    """Nothing, and nothing imported, unless it is live and has an address. It listens when a job starts it."""
    if settings.trading_mode is not Mode.LIVE or not settings.fyers_order_socket_url or tokens is None:
        return None
    from app.brokers.fyers.order_socket import OrderSocket

    url, app_id = settings.fyers_order_socket_url, settings.fyers_app_id
    feed = OrderSocket(url, app_id, tokens, clock, metrics.order_feed_event)
    metrics.samplers.append(lambda: metrics.order_feed_wanted.set(1))
    metrics.samplers.append(lambda: metrics.order_feed.set(feed.connected))
    return feed


def with_feed(found: Dependencies, feed: OrderFeed | None) -> Dependencies:
    return found if feed is None else {**found, "order_socket": feed.problem}
