"""How it is served: gunicorn's worker, and the reading of requests from slow clients."""
