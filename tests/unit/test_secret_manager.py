"""Settings out of Secret Manager: pinned versions, and a failure that names the setting and nothing else."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from app.settings import Settings, SettingsError, load
from app.settings.secret_manager import resolved, text_of

REFERENCE = "sm://projects/my-project/secrets/admin-token/versions/3"


def test_references_are_replaced_and_nothing_else_is_touched() -> None:
    asked: list[str] = []

    def fetch(name: str) -> str:
        asked.append(name)
        return "from google"

    found = resolved({"admin_token": REFERENCE, "port": 8080, "webhook_secret_token": "plain"}, fetch)
    assert found == {"admin_token": "from google", "port": 8080, "webhook_secret_token": "plain"}
    assert asked == ["projects/my-project/secrets/admin-token/versions/3"]


@pytest.mark.parametrize(
    "reference",
    [
        "sm://projects/p/secrets/s/versions/latest",
        "sm://projects/p/secrets/s",
        "sm://projects/p/secrets/s/versions/0",
        "sm://projects/p/secrets/s/versions/3/../4",
        "SM://projects/p/secrets/s/versions/3",
        "\tSm://projects/p/secrets/s/versions/3",
        " sm://projects/p/secrets/s/versions/latest",
    ],
)
def test_only_a_pinned_version_is_a_reference(reference: str) -> None:
    with pytest.raises(ValueError, match="ADMIN_TOKEN: expected") as told:
        resolved({"admin_token": reference}, lambda _: "never asked")
    assert reference.strip() not in str(told.value)


def test_a_reference_among_blanks_is_read_and_is_not_the_secret_itself() -> None:
    assert resolved({"admin_token": f" {REFERENCE}\n"}, lambda _: "from google") == {
        "admin_token": "from google"
    }


def test_a_start_with_what_only_looks_like_a_reference_is_refused() -> None:
    with pytest.raises(SettingsError, match="ADMIN_TOKEN: expected") as told:
        load(admin_token=REFERENCE.upper())
    assert REFERENCE.upper() not in str(told.value)


def test_every_failure_is_named_at_once_and_no_value_is() -> None:
    def fetch(name: str) -> str:
        raise LookupError("Secret Manager answered 403")

    with pytest.raises(ValueError, match=r"ADMIN_TOKEN: .*403; FYERS_PIN: .*403"):
        resolved({"admin_token": REFERENCE, "fyers_pin": REFERENCE}, fetch)


def test_the_payload_is_decoded_and_a_broken_one_is_no_secret() -> None:
    good = {"payload": {"data": base64.b64encode(b"s3cret\n").decode()}}
    assert text_of(good) == "s3cret"
    broken: tuple[Any, ...] = (
        {},
        {"payload": {"data": "%%%"}},
        {"payload": None},
        [],
        {"payload": {"data": "/w=="}},
    )
    for bad in broken:
        with pytest.raises(LookupError):
            text_of(bad)


def test_a_start_without_a_google_identity_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.settings.secret_manager.google_reader", _nobody)
    with pytest.raises(
        SettingsError, match="ADMIN_TOKEN: the secret could not be read: no Google identity"
    ) as told:
        load(admin_token=REFERENCE)
    assert REFERENCE not in str(told.value)


def test_a_reference_becomes_the_settings_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.settings.secret_manager.google_reader", lambda: lambda _: "x" * 32)
    assert Settings.model_validate({"admin_token": REFERENCE}).admin_token.get_secret_value() == "x" * 32


def _nobody() -> None:
    raise LookupError("no Google identity (DefaultCredentialsError)")
