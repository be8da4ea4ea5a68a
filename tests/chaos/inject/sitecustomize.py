"""On PYTHONPATH of a gunicorn that is to die: the real command line stays as it is."""

import os

if os.environ.get("CHAOS_PLAN"):
    from tests.chaos import served

    served.install(os.environ["CHAOS_PLAN"])
