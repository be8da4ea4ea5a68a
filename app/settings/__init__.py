"""The only reader of the environment. Every problem is reported at once, by the setting's name, never its value."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from app.domain.alert import Product
from app.domain.order import Mode
from app.domain.session import Calendar, read_calendar
from app.service.clients import signing_keys
from app.service.config_lists import listed
from app.settings import addresses
from app.settings.audit import AuditSettings
from app.settings.door import DoorSettings
from app.settings.generated import alike, plain, with_generated_secrets
from app.settings.guard import GuardSettings
from app.settings.notify import NotifySettings
from app.settings.risk import RiskSettings, at_most
from app.settings.secret_manager import resolved
from app.settings.telemetry import TelemetrySettings

FERNET_KEY_BYTES = 32
SETTLE_MIN_SECONDS = 90
SETTLE_MIN_READS = 5
WORKERS_ON_POSTGRES = 2
"""What gunicorn.conf.py starts there."""
EXAMPLE_SECRET = "change-me"  # noqa: S105 - what .env.example says, refused in live mode
MAX_PERCENT = Decimal(10_000)
"""A hundred times the price: what is far above that no price can be computed from."""
EXIT_CALLS = 3
"""In a second: the legs off, a look at the position, and the exit."""


class SettingsError(Exception):
    """The operator must correct the named settings."""


class Settings(RiskSettings, GuardSettings, DoorSettings, AuditSettings, TelemetrySettings, NotifySettings):
    """All settings; the README's table says what each means. An empty value is the default, for a risk limit off."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    trading_mode: Mode = Mode.PAPER
    database_url: str = ""
    webhook_secret_token: SecretStr = SecretStr("")
    admin_token: SecretStr = SecretStr("")
    webhook_hmac_secrets: SecretStr = SecretStr("")
    require_signature: bool = False
    max_content_length: int = Field(65536, ge=1024, le=1_000_000)
    ip_allowlist: str = ""
    trusted_proxy_hops: int = Field(0, ge=0, le=5)
    idempotency_ttl_seconds: int = Field(86400, ge=86400, le=604800)
    dedupe_window_seconds: int = Field(40, ge=20, lt=60)
    settle_min_seconds: float = Field(90, gt=0)
    settle_min_reads: int = Field(5, ge=1)
    reconcile_interval_seconds: float = Field(5, ge=0.2, le=60)
    order_tag_prefix: str = Field("", pattern=r"^([A-Z0-9]{4})?$")
    request_deadline_seconds: float = Field(2.0, gt=0.2, le=2.5)
    sl_percent: Decimal = Field(Decimal(15), gt=0, lt=100)
    tp_percent: Annotated[Decimal, Field(gt=0), at_most(MAX_PERCENT)] = Decimal(25)
    max_ltp_gap_percent: Annotated[Decimal, Field(gt=0), at_most(MAX_PERCENT)] = Decimal(5)
    default_product_type: Product = Product.INTRADAY
    scheduler_service_account: str = ""
    scheduler_audience: str = ""
    fyers_app_id: str = ""
    fyers_secret_id: SecretStr = SecretStr("")
    fyers_redirect_uri: str = ""
    fyers_pin: SecretStr = SecretStr("")
    fyers_auth_code: SecretStr = SecretStr("")
    fyers_access_token: SecretStr = SecretStr("")
    token_store: Literal["file", "gcs"] = "file"  # noqa: S105 - a place
    gcs_bucket_name: str = ""
    gcs_tokens_file: str = "tokens.json"
    token_encryption_keys: SecretStr = SecretStr("")
    session_secret: SecretStr = SecretStr("")
    fyers_api_url: str = "https://api-t1.fyers.in/api/v3"
    fyers_data_url: str = "https://api-t1.fyers.in/data"
    fyers_connect_timeout: float = Field(1.0, gt=0)
    fyers_read_timeout: float = Field(1.8, gt=0)
    symbol_master_url: str = "https://public.fyers.in/sym_details"
    symbol_master_files: Annotated[tuple[str, ...], NoDecode] = ("NSE_FO", "BSE_FO", "NSE_CM", "BSE_CM")
    holidays_file: Path | None = None
    preflight_ip_url: str = Field("", pattern=r"^($|https?://)")
    instance_dir: Path = Path("instance")
    port: int = Field(8080, ge=1, le=65535)

    @model_validator(mode="before")
    @classmethod
    def _from_secret_manager(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        return resolved(values)

    @field_validator(
        "webhook_secret_token",
        "admin_token",
        "session_secret",
        "fyers_app_id",
        "fyers_secret_id",
        "fyers_pin",
        "fyers_auth_code",
        "fyers_access_token",
    )
    @classmethod
    def _trimmed(cls, value: SecretStr | str) -> SecretStr | str:
        """A secret that is mounted as a file has a line end; and blanks alone are no secret."""
        text = plain(value).strip()
        return SecretStr(text) if isinstance(value, SecretStr) else text

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        return addresses.database(value) if value else value

    @field_validator("fyers_api_url", "fyers_data_url", "symbol_master_url")
    @classmethod
    def _https(cls, value: str) -> str:
        """Token, app hash and PIN go to the first two; what an order is for comes from the third."""
        return addresses.sealed(value, "https")

    @field_validator("symbol_master_files", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever was given
        return listed(value) if isinstance(value, str) else value

    @field_validator("ip_allowlist")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in listed(value):
            if word.lower() != "tradingview":
                ip_network(word)
        return value

    @model_validator(mode="after")
    def _patient(self) -> Settings:
        """A verdict of "never placed" that comes too early would be a wrong one: only a simulator may be hurried."""
        hurried = self.settle_min_seconds < SETTLE_MIN_SECONDS or self.settle_min_reads < SETTLE_MIN_READS
        loopback = addresses.is_loopback(urlsplit(self.fyers_api_url).hostname)
        if hurried and not loopback:
            raise ValueError(
                f"SETTLE_MIN_SECONDS and SETTLE_MIN_READS: expected at least {SETTLE_MIN_SECONDS} and "
                f"{SETTLE_MIN_READS} with a broker that is not on loopback, "
                f"were {self.settle_min_seconds:g} and {self.settle_min_reads}"
            )
        if not loopback and (above := self.above_fyers_limits()):
            raise ValueError("; ".join(above))
        return self

    @field_validator("holidays_file")
    @classmethod
    def _holidays(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                read_calendar(value.read_text(encoding="utf-8"))
            except OSError as exc:
                raise ValueError(f"expected a readable file: {exc.strerror}") from None
        return value

    @field_validator("token_encryption_keys")
    @classmethod
    def _fernet_keys(cls, value: SecretStr) -> SecretStr:
        for number, key in enumerate(listed(plain(value)), 1):
            try:
                length = len(base64.urlsafe_b64decode(key.encode()))
            except (binascii.Error, ValueError):
                length = 0
            if length != FERNET_KEY_BYTES:
                raise ValueError(f"expected Fernet keys (44 characters each), key {number} is none")
        return value

    @field_validator("webhook_hmac_secrets")
    @classmethod
    def _signing_keys(cls, value: SecretStr) -> SecretStr:
        signing_keys(plain(value))
        return value

    @model_validator(mode="after")
    def _signature(self) -> Settings:
        if self.require_signature and not plain(self.webhook_hmac_secrets).strip():
            raise ValueError("REQUIRE_SIGNATURE: expected WEBHOOK_HMAC_SECRETS too, was none")
        return self

    @model_validator(mode="after")
    def _scheduler(self) -> Settings:
        if bool(self.scheduler_service_account) != bool(self.scheduler_audience):
            raise ValueError("SCHEDULER_SERVICE_ACCOUNT and SCHEDULER_AUDIENCE: expected both or none")
        return self

    @model_validator(mode="after")
    def _store_of_tokens(self) -> Settings:
        if self.token_store == "gcs" and not self.gcs_bucket_name:  # noqa: S105 - a place
            raise ValueError("GCS_BUCKET_NAME is needed with TOKEN_STORE=gcs")
        return self

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.trading_mode is not Mode.LIVE:
            return self
        missing = [] if plain(self.fyers_app_id) else ["FYERS_APP_ID"]
        problems = self._without_login() + self._too_many_alone()
        if not self.is_sqlite:
            missing += [
                name.upper()
                for name in ("webhook_secret_token", "admin_token", "session_secret", "order_tag_prefix")
                if not plain(getattr(self, name))
            ]
        sample = [
            name.upper()
            for name in (
                "webhook_secret_token",
                "admin_token",
                "session_secret",
                "fyers_access_token",
                "fyers_secret_id",
            )
            if plain(getattr(self, name)) == EXAMPLE_SECRET
        ]
        problems += [f"{n} is needed in live mode" for n in missing]
        problems += [f"{n} still has the example's value" for n in sample]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _too_many_alone(self) -> list[str]:
        """An exit takes the legs off, looks again, and goes: a share that does not hold these leaves positions open."""
        share = self.fyers_calls_per_second // self.processes
        if self.redis_url or self.processes == 1 or share >= EXIT_CALLS:
            return []
        each = f"without REDIS_URL each may make {share} calls to the broker in a second"
        return [f"EXPECTED_PROCESSES is {self.processes}: {each}, and an exit needs {EXIT_CALLS}"]

    def _without_login(self) -> list[str]:
        """What a live start lacks to get at a token: one is given, or there can be a login."""
        if plain(self.fyers_access_token):
            return []
        hints = {
            "fyers_secret_id": "or FYERS_ACCESS_TOKEN",
            "token_encryption_keys": "or FYERS_ACCESS_TOKEN; a new key: python -c 'from cryptography.fernet import "
            "Fernet; print(Fernet.generate_key().decode())'",
        }
        lacking = [name for name in hints if not plain(getattr(self, name))]
        return [f"{n.upper()} is needed in live mode ({hints[n]})" for n in lacking]

    @property
    def own_calendar(self) -> Calendar:
        """The operator's own holidays and trading days, beside the built-in ones."""
        path = self.holidays_file
        return Calendar() if path is None else read_calendar(path.read_text(encoding="utf-8"))

    @property
    def redirect_uri(self) -> str:
        """Where Fyers sends the browser after a login; the same as in the Fyers app's own settings."""
        return self.fyers_redirect_uri or f"http://127.0.0.1:{self.port}/fyers/callback"

    @property
    def encryption_keys(self) -> tuple[str, ...]:
        """The first writes, all read."""
        return listed(plain(self.token_encryption_keys))

    @property
    def can_log_in(self) -> bool:
        """Whether a login at Fyers can be made, and its token kept."""
        secret = plain(self.fyers_secret_id)
        return bool(self.fyers_app_id and secret not in {"", EXAMPLE_SECRET} and self.encryption_keys)

    @property
    def url(self) -> str:
        """The database's address; without one a SQLite file in INSTANCE_DIR."""
        return self.database_url or f"sqlite:///{(self.instance_dir / 'orders.sqlite3').resolve()}"

    @property
    def index_dir(self) -> Path:
        """The paper exchange's own contracts and Fyers' stand apart: one must never be taken for the other."""
        return self.instance_dir / ("contracts-fyers" if self.has_real_market else "contracts")

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def processes(self) -> int:
        """How many share what Fyers and we allow, while Redis is away. Two full shares beside each other would be twice
        that, so the workers that gunicorn.conf.py starts on Postgres count also where EXPECTED_PROCESSES was forgotten.
        """
        return max(self.expected_processes, 1 if self.is_sqlite else WORKERS_ON_POSTGRES)

    @property
    def has_real_market(self) -> bool:
        """Whether contracts and prices are Fyers' own: in live mode, and in paper mode with credentials."""
        token = plain(self.fyers_access_token)
        given = bool(self.fyers_app_id) and token not in {"", EXAMPLE_SECRET}
        return given or self.can_log_in or self.trading_mode is Mode.LIVE

    @property
    def options_files(self) -> tuple[str, ...]:
        """The files of options that the contract index should have; empty for the paper exchange's own."""
        if not self.has_real_market:
            return ()
        names = (n if "." in n else f"{n}.csv" for n in self.symbol_master_files)
        return tuple(n for n in names if n.endswith("_FO.csv"))

    @property
    def hours_enforced(self) -> bool:
        """With real money always, unless it was said otherwise; on paper an order at midnight works."""
        said = self.enforce_market_hours
        return self.trading_mode is Mode.LIVE if said is None else said

    @property
    def dedupe_window(self) -> timedelta:
        return timedelta(seconds=self.dedupe_window_seconds)


def load(**overrides: Any) -> Settings:  # noqa: ANN401 - typed by the model
    """The settings from the environment, or one SettingsError that names every problem."""
    try:
        settings = Settings(**overrides)
    except ValidationError as exc:
        lines = [
            f"{'.'.join(str(p) for p in e['loc']).upper()}: {e['msg']}"
            for e in exc.errors(include_input=False)
        ]
        raise SettingsError("settings: " + "; ".join(line.removeprefix(": ") for line in lines)) from None
    whole = with_generated_secrets(settings)
    if problems := alike(whole):
        raise SettingsError("settings: " + "; ".join(problems))
    return whole
