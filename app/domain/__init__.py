"""The pure core: what an alert, a contract, an order and its levels are. Standard library only; no clock, no I/O."""
