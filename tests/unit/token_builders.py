"""Records, places and clocks for the token store's tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.fernet import Fernet

from app.errors import TokenStoreUnavailable
from app.service.login import TokenRecord
from app.store.token_cipher import TokenCipher
from app.store.tokens import Held, SealedTokens, TokenObject
from app.store.tokens_file import FileObject

OBTAINED = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
ENDS = datetime(2026, 11, 25, 0, 30, tzinfo=UTC)
KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def record(number: int = 1, **changes: object) -> TokenRecord:
    """The login number `number`: a later one is newer."""
    fields: dict[str, object] = {
        "app_id": "X-200",
        "access_token": f"access-{number}-secret",
        "obtained_at": OBTAINED + timedelta(seconds=number),
        "ends_at": ENDS,
        "refresh_token": f"refresh-{number}-secret",
        "refresh_ends_at": OBTAINED + timedelta(days=15),
    }
    return TokenRecord(**(fields | changes))  # type: ignore[arg-type]


def read_plain(access: str, refresh: str) -> TokenRecord:
    return record(0, access_token=access, refresh_token=refresh, refresh_ends_at=None)


def sealed(place: TokenObject, *keys: str) -> SealedTokens:
    return SealedTokens(place, TokenCipher(keys or (KEY,)), read_plain)


def in_file(directory: Path, *keys: str) -> SealedTokens:
    return sealed(FileObject(directory / "tokens.json"), *keys)


@dataclass
class Memory:
    """A TokenObject that can be down, and that counts how often it is looked at."""

    name: str = "memory:tokens.json"
    poll_s: float = 15.0
    held: Held | None = None
    is_down: bool = False
    looks: int = 0
    reads: int = 0
    lose_answers: int = 0

    def stamp(self) -> object:
        self.looks += 1
        self._answer()
        return self.held.generation if self.held else None

    def read(self) -> Held | None:
        self.reads += 1
        self._answer()
        return self.held

    def write(self, data: bytes, expected: int) -> bool:
        self._answer()
        now = self.held.generation if self.held else 0
        if now != expected:
            return False
        self.held = Held(now + 1, data)
        if self.lose_answers:
            self.lose_answers -= 1
            raise TokenStoreUnavailable("the answer was lost")
        return True

    def _answer(self) -> None:
        if self.is_down:
            raise TokenStoreUnavailable("down")


@dataclass
class Time:
    """Both clocks of the port, moved together by hand."""

    at: datetime = OBTAINED
    seconds: float = field(default=100.0)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds
