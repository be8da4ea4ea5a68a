"""ops/cloudrun/service.yaml: its probes, its billing, and every name in it a setting of this service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.settings import Settings
from tests.unit.web_desk import WebDesk

FILE = Path(__file__).parents[2] / "ops" / "cloudrun" / "service.yaml"
SECRET_TOO = {"DATABASE_URL", "REDIS_URL", "NOTIFY_URLS"}
"""Plain strings that carry a password."""
LARGEST_WAIT_S = 240
"""Cloud Run takes no longer start-up."""


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["spec"]["template"]
    return found


@pytest.fixture(scope="module")
def container(template: dict[str, Any]) -> dict[str, Any]:
    (found,) = template["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_the_probes_ask_routes_that_are_there(container: dict[str, Any], tmp_path: Path) -> None:
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    desk = WebDesk(tmp_path)
    port = container["ports"][0]["containerPort"]
    for name in ("startupProbe", "livenessProbe"):
        probe = container[name]
        assert probe["httpGet"]["port"] == port
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]
        assert probe["periodSeconds"] * probe["failureThreshold"] <= LARGEST_WAIT_S
        assert desk.client.get(probe["httpGet"]["path"]).status_code == 200
    assert "PORT" not in {e["name"] for e in container["env"]}, "Cloud Run sets it itself"


def test_the_cpu_is_always_on_and_one_instance_always_there(template: dict[str, Any]) -> None:
    notes = template["metadata"]["annotations"]
    assert notes["run.googleapis.com/cpu-throttling"] == "false"
    assert int(notes["autoscaling.knative.dev/minScale"]) >= 1
    workers = 2
    env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
    assert int(env["EXPECTED_PROCESSES"]) == workers * int(notes["autoscaling.knative.dev/maxScale"])


def test_every_name_is_a_setting_and_every_secret_a_reference(container: dict[str, Any]) -> None:
    names = [e["name"] for e in container["env"]]
    assert len(names) == len(set(names))
    assert set(names) <= {name.upper() for name in Settings.model_fields}
    for entry in container["env"]:
        field = Settings.model_fields[entry["name"].lower()]
        is_secret = field.annotation is SecretStr or entry["name"] in SECRET_TOO
        assert ("valueFrom" in entry) == is_secret, entry["name"]
        if is_secret:
            assert entry["valueFrom"]["secretKeyRef"]["key"].isdigit(), "a version by number"
            assert "value" not in entry


def test_the_service_starts_live_with_what_the_file_gives(container: dict[str, Any]) -> None:
    def given(name: str) -> str:
        if name == "DATABASE_URL":
            return "postgresql+psycopg://trader_app@10.0.0.3/options"
        if name == "REDIS_URL":
            return "redis://10.0.0.4:6379/0"
        if name == "NOTIFY_URLS":
            return "json://127.0.0.1/"
        return Fernet.generate_key().decode()

    env = {e["name"].lower(): e.get("value") or given(e["name"]) for e in container["env"]}
    settings = Settings.model_validate(env)
    assert settings.can_log_in
    assert not settings.is_sqlite
    for needed in ("database_url", "redis_url", "gcs_bucket_name", "token_encryption_keys", "admin_token"):
        with_less = {k: v for k, v in env.items() if k != needed}
        assert needed in env
        if needed not in ("redis_url", "database_url"):
            with pytest.raises(ValueError, match=needed.upper()):
                Settings.model_validate(with_less)
