"""The OpenAPI document is valid, and served as it is written."""

from __future__ import annotations

from flask import Flask
from openapi_spec_validator import validate

from app.web.openapi import blueprint, document


def test_document_is_valid_and_served() -> None:
    validate(document())
    app = Flask("t")
    app.register_blueprint(blueprint())
    assert app.test_client().get("/openapi.json").get_json() == document()
