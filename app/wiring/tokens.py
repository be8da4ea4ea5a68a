"""The part of the wiring that the broker's access token comes from: its store, and the login."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from app.service.login import Login, TokenRecord, TokenVault
from app.service.ports import Clock, Notifier
from app.settings import Settings

if TYPE_CHECKING:
    from app.store.tokens import StoredTokens, TokenObject

OLD = timedelta(days=1)


def stored_tokens(settings: Settings, clock: Clock, notifier: Notifier) -> StoredTokens:
    """The token store; without keys it holds what FYERS_ACCESS_TOKEN gave and nothing else."""
    from app.brokers.fyers.login import given_tokens, record_of
    from app.store.tokens import SealedTokens, StoredTokens

    vault, app_id = None, settings.fyers_app_id
    if settings.encryption_keys:
        from app.store.token_cipher import TokenCipher

        def read_plain(access: str, refresh: str) -> TokenRecord:
            now = clock.now()
            found = record_of(app_id, access, now, refresh)
            # One that does not say when it was made is older than any login that is still to come.
            return found if found.obtained_at != now else replace(found, obtained_at=now - OLD)

        place = TOKEN_STORES[settings.token_store](settings)
        vault = SealedTokens(place, TokenCipher(settings.encryption_keys), read_plain)
    return StoredTokens(vault, app_id, clock, notifier, given_tokens(settings, clock.now()))


def login_of(settings: Settings, vault: TokenVault, clock: Clock) -> Login:
    from app.brokers.fyers.login import fyers_login

    return Login(fyers_login(settings), vault, clock)


def _token_file(settings: Settings) -> TokenObject:
    from app.store.tokens_file import FileObject

    return FileObject(settings.instance_dir / "tokens.json")


def token_in_gcs(settings: Settings) -> TokenObject:
    from app.store.tokens_gcs import GcsObject, load

    load()
    return GcsObject(settings.gcs_bucket_name, settings.gcs_tokens_file)


TOKEN_STORES: dict[str, Callable[[Settings], TokenObject]] = {"file": _token_file, "gcs": token_in_gcs}
