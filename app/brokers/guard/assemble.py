"""The guard as the settings say."""

from __future__ import annotations

from app.brokers.guard.budget import CallBudget, Rates
from app.brokers.guard.guard import BreakerPolicy, Guard
from app.brokers.guard.lookout import Lookout
from app.brokers.guard.redis_client import SharedRedis, connect
from app.service.ports import Broker, Clock, Notifier
from app.settings import Settings


def guarded(broker: Broker, settings: Settings, clock: Clock, notifier: Notifier) -> Guard:
    """One Fyers app has one budget and one breaker, whatever the instances. Asks Redis nothing yet."""
    key = f"guard:{settings.fyers_app_id}"
    shared = SharedRedis(connect(settings.redis_url)) if settings.redis_url else None
    rates = Rates(
        orders_per_second=settings.fyers_orders_per_second,
        calls_per_second=settings.fyers_calls_per_second,
        calls_per_minute=settings.fyers_calls_per_minute,
        calls_per_day=settings.fyers_calls_per_day,
        processes=settings.processes,
    )
    budget = CallBudget(rates, clock, notifier, shared, key)
    policy = BreakerPolicy(settings.breaker_fail_max, settings.breaker_reset_seconds)
    guard = Guard(broker, clock, notifier, budget, policy=policy, shared=shared, key=key)
    guard.listeners.append(Lookout(guard).wake)
    return guard
