"""A plaintext token of an earlier version that does not say when it was made never stands in a new login's way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.brokers.fyers.login import record_of
from app.settings import Settings
from app.wiring.tokens import stored_tokens
from tests.fakes import FakeClock, FakeNotifier


@pytest.mark.parametrize("looked_before", [False, True])
def test_a_login_takes_the_place_of_an_opaque_plaintext_token(tmp_path: Path, looked_before: bool) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps({"access_token": "opaque-old"}))
    key = Fernet.generate_key().decode()
    settings = Settings.model_validate(
        {"instance_dir": tmp_path, "fyers_app_id": "A-200", "token_encryption_keys": key}
    )
    clock = FakeClock()
    tokens = stored_tokens(settings, clock, FakeNotifier())
    if looked_before:
        assert tokens.current(clock.now()) == "opaque-old"
    login = record_of("A-200", "opaque-new", clock.now())
    clock.advance(1)  # what reads the old one reads it later
    assert tokens.save(login) == login
    assert tokens.current(clock.now()) == "opaque-new"
