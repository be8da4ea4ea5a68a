"""Builds the Flask app from Settings and Ports: blueprints, request bookkeeping, error handlers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flask import Flask

from app.domain.alert import Alert
from app.jobs.run import run_job
from app.service.check import CheckAlert, CheckReport
from app.service.place_order import Answer, PlaceOrder
from app.settings import Settings, load
from app.telemetry import requests
from app.telemetry.logging import configure
from app.telemetry.watcher import Watch
from app.web import config as web_config
from app.web import control, errors, fyers_login, kill, metrics, openapi, ops, orders, webhook
from app.web.middleware.headers import harden
from app.web.middleware.rate_limit import RateLimits
from app.web.middleware.scheduler import SchedulerTokens
from app.web.openapi_config import CONFIG_ROUTES
from app.web.openapi_login import LOGIN_ROUTES
from app.web.ports import Ports
from app.wiring import build


def create_app(settings: Settings | None = None, ports: Ports | None = None) -> Flask:
    """The service. Without arguments from the environment; tests hand in their own ports."""
    ports = ports or build(settings or load())
    if not isinstance(ports.watcher, Watch):
        ports = replace(ports, watcher=Watch())
    watch: Watch = ports.watcher  # type: ignore[assignment]
    configure(ports.settings)
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    requests.watch(app, ports.clock.monotonic, watch.metrics, watch.tracing)
    harden(app, ports.settings.allowed_origins)

    def place_order(alert: Alert, *, request_id: str, started: float) -> Answer:
        return PlaceOrder(ports.desk())(alert, request_id=request_id, started=started)

    def check_alert(alert: Alert, request_id: str, started: float) -> CheckReport:
        return CheckAlert(ports.desk())(alert, request_id, started)

    rates = RateLimits(app, ports.settings, ports.callers.address)
    ports.callers.counted = rates.client
    if (config := ports.config) is not None:
        rates.of_entries = lambda: config.known().effective.rate_limit_webhook
    door = webhook.Door(ports, rates)
    app.register_blueprint(webhook.blueprint(door, place_order))
    app.register_blueprint(orders.blueprint(door, place_order, check_alert))
    app.register_blueprint(ops.blueprint(ports))
    app.register_blueprint(metrics.blueprint(ports))
    scheduler = SchedulerTokens(
        ports.settings.scheduler_service_account, ports.settings.scheduler_audience, ports.clock.monotonic
    )
    app.register_blueprint(control.blueprint(ports, partial(run_job, ports), scheduler))
    app.register_blueprint(kill.blueprint(ports))
    documented = LOGIN_ROUTES if ports.login is not None else ()
    if ports.config is not None and ports.trials is not None:
        app.register_blueprint(web_config.blueprint(ports, ports.config, ports.trials))
        documented = CONFIG_ROUTES + documented
    app.register_blueprint(openapi.blueprint(documented))
    if ports.login is not None:
        app.register_blueprint(fyers_login.blueprint(ports, ports.login, rates.failed_login))
    errors.register(app)
    app.extensions["ports"] = ports
    app.extensions["reconcile"] = lambda: ports.reconcile(None)
    return app
