"""GET /metrics: the service's figures as Prometheus reads them, for whoever has the admin token."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app.web.ports import Ports


def blueprint(ports: Ports) -> Blueprint:
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def metrics() -> Response:
        ports.callers.admin(request)
        body, content_type = ports.watcher.page()
        return Response(body, content_type=content_type)

    return routes
