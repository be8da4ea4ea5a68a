"""Runtime configuration, experiments and preferences on the API. The admin changes; a client has its own preferences."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.domain.experiment import FLAGS, Experiment, Flag, Variant
from app.domain.order import OrderKind
from app.errors import FieldError, InvalidAlert, NotFound
from app.service.clients import ClientScope
from app.service.config import Config, Done, InForce, Version
from app.service.config_document import Document, experiment_raw, with_experiment, with_flag, with_settings
from app.service.experiments import METHOD, TrialStore, VariantReport, report
from app.service.notices import Channel
from app.service.observe import masked
from app.web import answers
from app.web.control import by_api, object_of
from app.web.openapi_config import ConfigBody, ExperimentBody, FlagBody, Preferences, RollbackBody
from app.web.orders import argument
from app.web.ports import Ports
from app.web.schemas import validated

MAX_PAGE = 200
LIST = (
    'expected a list of texts of which none is empty ("" alone: the limit is off; null: the environment\'s)'
)
"""An empty list says "nothing may", and an empty text "all may": the one is never taken for the other."""


def blueprint(ports: Ports, config: Config, trials: TrialStore) -> Blueprint:
    routes = Blueprint("config", __name__, url_prefix="/api/v1")
    _config(routes, ports, config)
    _experiments(routes, ports, config, trials)
    _preferences(routes, ports, config)
    return routes


def _config(routes: Blueprint, ports: Ports, config: Config) -> None:
    @routes.get("/config")
    def show() -> Response:
        ports.callers.admin(request)
        return jsonify(config_body(config(), config.rules.effective({}).values))

    @routes.put("/config")
    def change() -> Response:
        by = by_api(ports.callers.admin(request))
        body = validated(ConfigBody, object_of(ports))
        texts = {name.upper(): _text(name, value) for name, value in body.settings.items()}
        flags = {name: _flag(name, flag) for name, flag in body.flags.items()}

        def edit(document: Document) -> Document:
            document = with_settings(texts)(document)
            for name, flag in flags.items():
                document = with_flag(name, flag)(document)
            return document

        return jsonify(done_body(config.change(by, body.reason, edit)))

    @routes.get("/config/history")
    def history() -> Response:
        ports.callers.admin(request)
        limit = argument("limit", _page_size, f"1 to {MAX_PAGE}") or 50
        return jsonify({"versions": [version_body(v) for v in config.history(limit)]})

    @routes.post("/config/rollback")
    def rollback() -> Response:
        by = by_api(ports.callers.admin(request))
        body = validated(RollbackBody, object_of(ports))
        return jsonify(done_body(config.rollback(by, body.reason, body.version)))


def _experiments(routes: Blueprint, ports: Ports, config: Config, trials: TrialStore) -> None:
    @routes.get("/experiments")
    def experiments() -> Response:
        ports.callers.admin(request)
        found = sorted(config().document.experiments.values(), key=lambda e: e.name)
        return jsonify({"experiments": [experiment_body(e) for e in found]})

    @routes.put("/experiments/<name>")
    def set_experiment(name: str) -> Response:
        by = by_api(ports.callers.admin(request))
        body = validated(ExperimentBody, object_of(ports))
        edit = with_experiment(_experiment(masked(name), body))
        return jsonify(done_body(config.change(by, body.reason, edit)))

    @routes.get("/experiments/<name>/report")
    def compared(name: str) -> Response:
        ports.callers.admin(request)
        experiment = config().document.experiments.get(name)
        if experiment is None:
            raise NotFound("there is no such experiment")
        found = report(experiment, trials.trials(ports.scope, experiment))
        variants = [variant_body(v) for v in found]
        return jsonify({"experiment": experiment_body(experiment), "variants": variants, "method": METHOD})


def _preferences(routes: Blueprint, ports: Ports, config: Config) -> None:
    @routes.get("/preferences")
    def preferences() -> Response:
        caller = ports.callers.bearer(request, *ClientScope)
        kept = dict(config.store.preferences(caller.client) or {})
        known = {name: value for name, value in kept.items() if name in Preferences.model_fields}
        return jsonify(validated(Preferences, known).model_dump(mode="json"))

    @routes.put("/preferences")
    def prefer() -> Response:
        caller = ports.callers.bearer(request, *ClientScope)
        value = validated(Preferences, object_of(ports)).model_dump(mode="json")
        _known_channels(value["channels"], [channel for channel, _ in ports.settings.channels])
        config.store.set_preferences(caller.client, value)
        return jsonify(value)


def _known_channels(words: list[str], channels: list[Channel]) -> None:
    """Raises InvalidAlert. A name with a typing error would leave the client's notices to others."""
    for word in words:
        if not any(channel.is_called(word) for channel in channels):
            names = ", ".join(c.name for c in channels) or "none (NOTIFY_URLS is empty)"
            raise InvalidAlert((FieldError("channels", f"expected numbers, kinds or names of {names}"),))


def _page_size(text: str) -> int:
    size = int(text)
    if not 0 < size <= MAX_PAGE:
        raise ValueError(text)
    return size


def _text(name: str, value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """As the environment would have it."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case dict():
            try:
                return json.dumps(value)
            except TypeError:  # a number with a fraction: no count of lots
                raise InvalidAlert((FieldError(name, "expected whole numbers"),)) from None
        case list():
            if not value or not all(isinstance(one, str) and one.strip() for one in value):
                was = "one with something else in it" if value else "an empty list"
                raise InvalidAlert((FieldError(name.upper(), f"{LIST}, was {was}"),))
            return ",".join(value)
        case _:
            return str(value)


def _flag(name: str, body: FlagBody) -> Flag:
    both = sorted(set(body.on) & set(body.off))
    if both:
        raise InvalidAlert((FieldError(name, f"expected on or off, was both for {', '.join(both)}"),))
    return Flag(body.percent, dict.fromkeys(body.on, True) | dict.fromkeys(body.off, False))


def _experiment(name: str, body: ExperimentBody) -> Experiment:
    try:
        variants = tuple(
            Variant(v.name, v.weight, v.sl_percent, v.tp_percent, OrderKind(v.kind)) for v in body.variants
        )
        strategies = None if body.strategies is None else frozenset(body.strategies)
        return Experiment(name, variants, strategies, body.running)
    except ValueError as error:
        field, _, message = str(error).partition(": ")
        raise InvalidAlert((FieldError(field, message),)) from None


def config_body(now: InForce, environment: Any) -> dict[str, Any]:  # noqa: ANN401 - names to texts
    settings = [
        {
            "name": name,
            "value": value,
            "environment": environment[name],
            "is_set": name in now.document.settings,
        }
        for name, value in now.effective.values.items()
    ]
    flags = [flag_body(name, now.document.flags.get(name, Flag())) for name in FLAGS]
    return {**version_body(now.version), "settings": settings, "flags": flags}


def flag_body(name: str, flag: Flag) -> dict[str, Any]:
    sides = {on: sorted(s for s, is_on in flag.strategies.items() if is_on is on) for on in (True, False)}
    return {
        "name": name,
        "what": FLAGS[name],
        "percent": flag.percent,
        "on": sides[True],
        "off": sides[False],
    }


def version_body(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "at": answers.ist(version.at) if version.number else None,
        "by": version.by,
        "reason": version.reason,
        "changes": [asdict(c) for c in version.changes],
    }


def done_body(done: Done) -> dict[str, Any]:
    return {**version_body(done.version), "changed": done.changed}


def experiment_body(experiment: Experiment) -> dict[str, Any]:
    return {"name": experiment.name, **experiment_raw(experiment)}


def variant_body(found: VariantReport) -> dict[str, Any]:
    return {**asdict(found), "profit_total": answers.money(found.profit_total)}
