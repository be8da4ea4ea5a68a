"""How the service is served: `gunicorn -c gunicorn.conf.py app.wsgi:app`, with nothing but the environment."""

from __future__ import annotations

from typing import Any

from app.jobs import Scheduler
from app.settings import load
from app.start import announce, prepare

_settings = load()

bind = f"0.0.0.0:{_settings.port}"
# SQLite has one writer: its queue lives in the process, so there is one process. On Postgres two.
workers = 1 if _settings.is_sqlite else 2
worker_class = "gthread"
# Sixteen alerts that all wait for a hung broker must leave room for probes and the dashboard.
threads = 24
# Cloud Run sends SIGTERM and, 10 s later, SIGKILL: requests in flight get 8 s, the rest of it is for the exit.
graceful_timeout = 8
# A worker whose threads are all stuck is killed; each request ends by its own deadline of 2 s.
timeout = 30
keepalive = 75
# The heartbeat file must not lie on a slow disk.
worker_tmp_dir = "/dev/shm"
# A control socket in the home directory has no use here, and a read-only root has no place for it.
control_socket_disable = True
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190


def on_starting(server: Any) -> None:
    """Once, before any worker: secrets, schema and contract index."""
    asked = server.cfg.settings["workers"].get()
    if _settings.is_sqlite and asked > 1:
        raise SystemExit(f"expected 1 worker on SQLite, was {asked}: use Postgres for more")
    prepare(_settings)


def post_worker_init(worker: Any) -> None:
    """In each worker: threads do not outlive a fork."""
    scheduler = Scheduler(worker.wsgi.extensions["ports"])
    scheduler.start()
    worker.wsgi.extensions["scheduler"] = scheduler


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    scheduler = getattr(worker, "wsgi", None) and worker.wsgi.extensions.get("scheduler")
    if scheduler:
        scheduler.stop()


def when_ready(server: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    announce(_settings)
