"""The guard around any broker: breakers, budget of calls, retries of reads."""

from app.brokers.guard.assemble import guarded
from app.brokers.guard.breaker import Breaker
from app.brokers.guard.budget import CallBudget, Rates
from app.brokers.guard.exchanger import GuardedExchanger
from app.brokers.guard.guard import BreakerPolicy, Guard
from app.brokers.guard.redis_client import SharedRedis, connect

__all__ = [
    "Breaker",
    "BreakerPolicy",
    "CallBudget",
    "Guard",
    "GuardedExchanger",
    "Rates",
    "SharedRedis",
    "connect",
    "guarded",
]
