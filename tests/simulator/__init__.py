"""The parts of the Fyers v3 simulator; `tests.fyers_sim.FyersSim` puts them together."""
