"""What a live start needs to get at a token, and what the store is wired to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.settings import SettingsError, load
from app.settings.generated import generate_secrets
from app.store.tokens_file import FileObject
from app.wiring import build
from app.wiring.tokens import TOKEN_STORES

KEY = Fernet.generate_key().decode()


pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, {"FYERS_SECRET_ID", "TOKEN_ENCRYPTION_KEYS"}),
        ({"fyers_secret_id": "s"}, {"TOKEN_ENCRYPTION_KEYS"}),
        ({"token_encryption_keys": KEY}, {"FYERS_SECRET_ID"}),
        ({"token_encryption_keys": KEY, "fyers_secret_id": "s"}, set()),
        ({"fyers_access_token": "t"}, set()),
    ],
)
def test_a_live_start_needs_a_login_or_a_token(given: dict[str, str], lacking: set[str]) -> None:
    named: set[str] = set()
    try:
        load(trading_mode="live", fyers_app_id="X-200", **given)
    except SettingsError as error:
        named = {n for n in ("FYERS_SECRET_ID", "TOKEN_ENCRYPTION_KEYS") if f"{n} is needed" in str(error)}
    assert named == lacking


def test_live_on_postgres_needs_a_session_secret() -> None:
    with pytest.raises(SettingsError, match="SESSION_SECRET is needed"):
        load(
            trading_mode="live",
            fyers_app_id="X-200",
            fyers_access_token="t",
            database_url="postgresql+psycopg://localhost/x",
        )


def test_what_is_no_fernet_key_is_named_by_its_number_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="key 2 is none") as caught:
        load(token_encryption_keys=f"{KEY}, not-a-key-but-a-secret")
    assert "not-a-key" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_gcs_needs_a_bucket() -> None:
    with pytest.raises(SettingsError, match="GCS_BUCKET_NAME"):
        load(token_store="gcs")


def test_the_first_start_makes_a_session_secret_of_its_own(tmp_path: Path) -> None:
    generate_secrets(load(instance_dir=tmp_path))
    found = load(instance_dir=tmp_path)
    secret = found.session_secret.get_secret_value()
    assert len(secret) >= 43
    assert secret not in (found.admin_token.get_secret_value(), found.webhook_secret_token.get_secret_value())


@pytest.mark.parametrize("name", ["token_encryption_keys", "session_secret", "fyers_secret_id", "fyers_pin"])
def test_secrets_are_in_no_text_of_the_settings(name: str) -> None:
    value = KEY if name == "token_encryption_keys" else "a-very-secret-value"
    settings = load(**{name: value})
    assert value not in repr(settings) + str(settings)


def test_paper_mode_has_no_login_page_and_live_mode_has(tmp_path: Path) -> None:
    assert build(load(instance_dir=tmp_path)).login is None
    live = {
        "trading_mode": "live",
        "fyers_app_id": "X-200",
        "fyers_secret_id": "s",
        "token_encryption_keys": KEY,
    }
    assert build(load(instance_dir=tmp_path, **live)).login is not None


def test_every_token_store_is_wired(tmp_path: Path) -> None:
    settings = load(instance_dir=tmp_path, gcs_bucket_name="b", token_store="gcs")
    places = {name: make(settings) for name, make in TOKEN_STORES.items()}
    assert isinstance(places["file"], FileObject)
    assert places["gcs"].name == "gs://b/tokens.json"


def test_google_s_libraries_load_only_where_they_are_used() -> None:
    code = "import app.wiring, app.store.tokens, app.store.tokens_gcs, sys; print('google.cloud.storage' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
