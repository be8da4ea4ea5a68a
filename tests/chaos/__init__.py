"""Kill the real service at every place where it matters, let it recover, and let the broker's ledger judge.

    make chaos                                       every point once, over SQLite and Postgres; minutes
    python -m tests.chaos --kills 50 --only exit     some of it
    python -m tests.chaos --kills 0 --gunicorn 0 --stops 0 --parts 0.1 --only exits

`points` finds the places, `scenarios` says what is going on when somebody dies there, `run` forks the victim and its
successor, `simulator` is the broker that outlives them, `judge` compares its ledger with the alerts that were sent,
`register` keeps the names that have a case, `gunicorn` and `stopped` do the same to real workers and with SIGSTOP.

`parts` is everything besides the kills: `crowd` and `services` send one alert in 64 copies over three instances, `exits`
closes one position 64 times at once, `machine` lets Hypothesis choose what happens next (on `processes` that die and a
`street` whose book lags), `outage` stops Postgres and empties Redis under load; `tally` judges where alerts are many.
`naive` calls the broker before it writes its intent: were it not caught, the harness could not fail.
"""
