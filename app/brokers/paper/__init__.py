"""A complete exchange on the database: contracts, moving prices, order book, fills, positions. No network."""

from app.brokers.paper.broker import PaperBroker

__all__ = ["PaperBroker"]
