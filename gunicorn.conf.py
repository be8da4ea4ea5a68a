"""How the service is served: `gunicorn -c gunicorn.conf.py app.wsgi:app`, with nothing but the environment."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.jobs.order_updates import OrderUpdates
from app.jobs.run import Scheduler
from app.serving.listener import admit_nobody_from_the_end
from app.serving.memory import settle
from app.serving.worker import PatientWorker
from app.settings import WORKERS_ON_POSTGRES, SettingsError, load
from app.start import announce, prepare
from app.telemetry.gunicorn_log import JsonLogger

try:
    _settings = load()
except SettingsError as error:
    raise SystemExit(f"Error: {error}") from None
MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"
SHM = Path("/dev/shm")


def _figures_dir() -> str:
    """Where the workers keep their counts, in memory: a worker that dies leaves them there, and /metrics adds them up.
    A dead service's own are removed. Set before anything imports prometheus_client, which looks once.
    """
    base = SHM if os.access(SHM, os.W_OK) else Path(tempfile.gettempdir())
    mine = base / f"tv-fyers-metrics-{os.getuid()}-{os.getpid()}"
    for old in base.glob(f"tv-fyers-metrics-{os.getuid()}-*"):
        try:
            os.kill(int(old.name.rsplit("-", 1)[1]), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(old, ignore_errors=True)
        except OSError:
            continue
    if os.environ.get(MULTIPROC) != str(mine):  # else the configuration is only read again
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir(mode=0o700)
    return str(mine)


with suppress(OSError):  # without it each worker shows its own counts, and the service runs all the same
    os.environ[MULTIPROC] = _figures_dir()

bind = f"0.0.0.0:{_settings.port}"
# SQLite has one writer: its queue lives in the process, so there is one process. On Postgres two.
workers = 1 if _settings.is_sqlite else WORKERS_ON_POSTGRES
# A request gets one of the threads once it has come in whole: see app/serving/worker.py for what gthread itself leaves open.
# What the settings below bound, and what they do not:
#   timeout            nothing of a request: gthread's loop reports that it lives, whatever its threads do
#   keepalive          how long a connection without a request may stay; longer than the usual proxy's 60 s
#   worker_connections all connections of a worker; past it the longest-waiting one is closed for a new one
#   limit_request_*    what the parser takes; MAX_HEAD_BYTES in app/serving/receive.py bounds request line and headers together
# Receiving a request is bounded by RECEIVE_S (3 s) in app/serving/worker.py, its body by MAX_CONTENT_LENGTH, and answering it
# by its own deadline of 2 s. 200 clients that drip headers or bodies hold no thread (tests/e2e/test_slow_clients.py).
PatientWorker.max_body_bytes = _settings.max_content_length
worker_class = "app.serving.worker.PatientWorker"
JsonLogger.settings = _settings
logger_class = JsonLogger
# Sixteen alerts that all wait for a hung broker must leave room for probes and the dashboard.
threads = 24
# Of the usual 1024 file descriptors, with room for the database, the broker and Redis.
worker_connections = 600
# Cloud Run sends SIGTERM and, 10 s later, SIGKILL. What happens in between:
#   at once   nothing more is accepted; what the kernel had accepted already is taken over first
#   to 7 s    requests in flight are answered (each within its own deadline of 2 s, queued ones after them), jobs go on
#   to 8 s    traces are flushed, the jobs' leases given back, and the worker ends, whatever a thread of it still does
#   at 8 s    the parent kills what is left. An order that was cut off there stands in the database as SENDING, and the
#             next process, or any other instance, settles it by the broker's book as after any crash
graceful_timeout = 8
WORKER_DRAIN_S = 7
LAST_STEPS_S = 0.7
# Of it, for the database to take the notices that were told outside of a transaction: a page must not end with the process.
NOTICES_S = 0.3
# A worker whose loop is stuck is killed; each request ends by its own deadline of 2 s.
timeout = 30
keepalive = 75
# The heartbeat file must not lie on a slow disk.
worker_tmp_dir = "/dev/shm"
# A control socket in the home directory has no use here, and a read-only root has no place for it.
control_socket_disable = True
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
# A tunnel on this host is a peer that gunicorn trusts, and it passes on what its client sent: SCRIPT_NAME as a header would
# take the beginning off the path, and a rule of the tunnel's about paths would have looked at another one.
forwarder_headers = ""


def on_starting(server: Any) -> None:
    """Once, before any worker: secrets, schema and contract index."""
    asked = server.cfg.settings["workers"].get()
    if _settings.is_sqlite and asked > 1:
        raise SystemExit(f"expected 1 worker on SQLite, was {asked}: use Postgres for more")
    prepare(_settings)


def post_worker_init(worker: Any) -> None:
    """In each worker: threads do not outlive a fork."""
    worker.cfg.set("graceful_timeout", WORKER_DRAIN_S)  # this process's own copy: the parent's stays longer
    ports = worker.wsgi.extensions["ports"]
    scheduler = Scheduler(ports)
    scheduler.start()
    worker.wsgi.extensions["scheduler"] = scheduler
    if ports.order_feed is not None:
        updates = OrderUpdates(ports, ports.order_feed)
        updates.start()
        worker.wsgi.extensions["order_updates"] = updates
    settle()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """The last steps, bounded, and then the end: a job's or a request's thread that hangs would hold it for ever."""
    ended = sys.exc_info()[1]
    extensions = worker.wsgi.extensions if getattr(worker, "wsgi", None) else {}

    def steps() -> None:
        for name in ("order_updates", "scheduler"):
            if name in extensions:
                extensions[name].stop()
        if "ports" in extensions:
            ports = extensions["ports"]
            if ports.beside is not None:
                ports.beside.flush(NOTICES_S)
            ports.watcher.close()

    last = threading.Thread(target=steps, daemon=True)
    last.start()
    last.join(LAST_STEPS_S)
    logging.shutdown()
    code = (ended.code or 0) if isinstance(ended, SystemExit) else 1
    os._exit(code if isinstance(code, int) else 1)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """What a dead worker had open or waiting is no more; what it has counted stays."""
    shared = os.environ.get(MULTIPROC)
    for file in Path(shared).glob(f"gauge_live*_{worker.pid}.db") if shared else ():
        file.unlink(missing_ok=True)


def on_exit(server: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    if shared := os.environ.get(MULTIPROC):
        shutil.rmtree(shared, ignore_errors=True)


def when_ready(server: Any) -> None:
    admit_nobody_from_the_end(server)
    announce(_settings)
