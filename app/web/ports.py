"""Everything outside that the routes are built on, ready to use. `app/wiring.py` fills it."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.order import Scope
from app.service.place_order import Policy
from app.service.ports import Broker, Clock, Contracts, Notifier, Store, Tokens
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Ports:
    settings: Settings
    clock: Clock
    store: Store
    broker: Broker
    contracts: Contracts
    scope: Scope
    tokens: Tokens
    notifier: Notifier
    policy: Policy
