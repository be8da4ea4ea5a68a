"""A complete exchange on the database: contracts, moving prices, order book, fills, positions. No network."""
