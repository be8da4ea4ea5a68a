"""The settings: documented, complete, and clear when wrong."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.settings import Settings, SettingsError, load
from app.settings.generated import generate_secrets, plain

ROOT = Path(__file__).parents[2]
NAMES = {name.upper() for name in Settings.model_fields}


pytestmark = pytest.mark.usefixtures("bare_environment")


def test_every_setting_is_in_the_example_and_the_readme() -> None:
    example = {line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    readme = (ROOT / "README.md").read_text()
    assert example == NAMES
    assert [name for name in NAMES if f"`{name}`" not in readme] == []


def test_the_example_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load()
    for line in (ROOT / ".env.example").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    assert load() == defaults


def test_all_problems_are_named_at_once_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SL_PERCENT", "100")
    monkeypatch.setenv("PORT", "secret-looking")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "SL_PERCENT" in str(caught.value)
    assert "PORT" in str(caught.value)
    assert "secret-looking" not in str(caught.value)


@pytest.mark.parametrize("text", [",", " , ,", "  "])
@pytest.mark.parametrize(
    "name",
    [
        "IP_ALLOWLIST",
        "RISK_SYMBOLS",
        "CORS_ORIGINS",
        "NOTIFY_URLS",
        "WEBHOOK_HMAC_SECRETS",
        "TOKEN_ENCRYPTION_KEYS",
        "SYMBOL_MASTER_FILES",
    ],
)
def test_a_list_that_names_nothing_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """`$OFFICE,$HOME` with both unset: it must not open the door, nor leave a token unsealed."""
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        load()
    wanted = f"expected words with commas between them, or nothing at all, was {text!r}"
    assert str(caught.value) == f"settings: {name}: Value error, {wanted}"


def test_live_needs_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADING_MODE", "live")
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://localhost/x")
    monkeypatch.setenv("WEBHOOK_SECRET_TOKEN", "change-me")
    with pytest.raises(SettingsError) as caught:
        load()
    for name in (
        "FYERS_APP_ID",
        "FYERS_ACCESS_TOKEN",
        "ADMIN_TOKEN",
        "ORDER_TAG_PREFIX",
        "WEBHOOK_SECRET_TOKEN",
    ):
        assert name in str(caught.value)


LISTS = {"webhook_hmac_secrets", "token_encryption_keys", "notify_urls"}
"""Read word by word, without the blanks between them."""
TRIMMED = {n for n, f in Settings.model_fields.items() if f.annotation is SecretStr} - LISTS | {
    "fyers_app_id"
}
LIVE = {
    "trading_mode": "live",
    "database_url": "postgresql+psycopg://localhost/x",
    "webhook_secret_token": "the webhook's",
    "admin_token": "the admin's",
    "session_secret": "the session's",
    "order_tag_prefix": "ABCD",
    "fyers_app_id": "X-200",
    "fyers_access_token": "a token",
}


@pytest.mark.parametrize("name", sorted(TRIMMED))
def test_a_secret_that_is_mounted_as_a_file_has_no_line_end(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name.upper(), " the secret\r\n")
    assert plain(getattr(load(), name)) == "the secret"


@pytest.mark.parametrize(
    "name", ["webhook_secret_token", "admin_token", "session_secret", "fyers_app_id", "fyers_access_token"]
)
def test_blanks_alone_are_no_secret(name: str) -> None:
    load(**LIVE)
    with pytest.raises(SettingsError, match=f"{name.upper()} is needed|or {name.upper()}"):
        load(**{**LIVE, name: " \n"})


def test_blanks_alone_are_no_token_that_could_be_shown(tmp_path: Path) -> None:
    generate_secrets(load(instance_dir=tmp_path, webhook_secret_token=" ", admin_token="\t"))
    made = load(instance_dir=tmp_path, webhook_secret_token=" ", admin_token="\t")
    assert len(plain(made.webhook_secret_token)) >= 43
    assert len(plain(made.admin_token)) >= 43


def test_the_example_s_value_is_known_among_blanks() -> None:
    with pytest.raises(SettingsError, match="ADMIN_TOKEN still has the example's value"):
        load(**{**LIVE, "admin_token": "change-me\n"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("webhook_secret_token", "admin_token"),
        ("webhook_secret_token", "session_secret"),
        ("admin_token", "session_secret"),
    ],
)
def test_one_secret_for_two_things_starts_nothing(one: str, other: str, tmp_path: Path) -> None:
    wanted = f"settings: {one.upper()} and {other.upper()}: expected two secrets, was one"
    with pytest.raises(SettingsError) as caught:
        load(instance_dir=tmp_path, **{one: "Secret9", other: "Secret9 "})
    assert str(caught.value) == wanted
    generate_secrets(load(instance_dir=tmp_path))
    made = plain(getattr(load(instance_dir=tmp_path), one))
    with pytest.raises(SettingsError) as caught:
        load(instance_dir=tmp_path, **{other: made})
    assert str(caught.value) == wanted


def test_first_start_writes_tokens_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    settings = load(instance_dir=tmp_path / "instance")
    generate_secrets(settings)
    first = load(instance_dir=tmp_path / "instance")
    generate_secrets(first)
    again = load(instance_dir=tmp_path / "instance")
    assert len(first.webhook_secret_token.get_secret_value()) >= 43
    assert first.admin_token != first.webhook_secret_token
    assert again == first
    mode = stat.S_IMODE((tmp_path / "instance" / "webhook_token").stat().st_mode)
    assert mode == 0o600


def test_a_start_that_was_killed_while_it_wrote_leaves_no_secret_and_the_next_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            generate_secrets(load(instance_dir=tmp_path))
    assert not (tmp_path / "webhook_token").exists()
    generate_secrets(load(instance_dir=tmp_path))
    assert len(load(instance_dir=tmp_path).webhook_secret_token.get_secret_value()) >= 43
    assert sorted(f.name for f in tmp_path.iterdir()) == ["admin_token", "session_secret", "webhook_token"]


def test_an_empty_secret_of_a_killed_start_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "webhook_token").touch(mode=0o644)
    generate_secrets(load(instance_dir=tmp_path))
    assert len(load(instance_dir=tmp_path).webhook_secret_token.get_secret_value()) >= 43
    assert stat.S_IMODE((tmp_path / "webhook_token").stat().st_mode) == 0o600


def test_of_two_first_starts_the_one_that_waited_reads_what_the_first_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def lock_after_the_other(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        (tmp_path / "webhook_token").write_text("of the first\n", encoding="utf-8")

    monkeypatch.setattr(fcntl, "flock", lock_after_the_other)
    generate_secrets(load(instance_dir=tmp_path))
    assert load(instance_dir=tmp_path).webhook_secret_token.get_secret_value() == "of the first"


def test_blanks_between_the_names_of_the_masters_files_are_none_of_them() -> None:
    live = {"fyers_app_id": "X-200", "fyers_access_token": "t"}
    settings = load(**live, symbol_master_files="BSE_FO, NSE_FO ,")
    assert settings.symbol_master_files == ("BSE_FO", "NSE_FO")
    assert settings.options_files == ("BSE_FO.csv", "NSE_FO.csv")


@pytest.mark.slow
def test_gunicorn_tells_a_wrong_setting_in_one_line(tmp_path: Path) -> None:
    wrong = "postgresql+psycopg://trader:p@ss:Secret9@10.0.0.5/orders"
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--check-config", "app.wsgi:app"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": wrong, "INSTANCE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: settings: DATABASE_URL:")
    assert "Secret9" not in line
