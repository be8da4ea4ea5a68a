"""Every secret that a service of the suite has, looked for in whatever services, clients and databases leave behind.

`tests/leak_hooks.py` feeds it, `tests/conftest.py` asks it at the end of each test, in each worker of pytest-xdist for
itself. A hit fails the test in whose time it came, by place, kind and spelling; the value itself is never said.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, quote_plus, unquote, urlsplit

MIN_LENGTH = 8
"""A shorter one ("t", "hook", a PIN of four digits) would be found by accident; the suite's services have long ones."""
NO_SECRETS = frozenset({"change-me", "s" * 40})
"""What the example says and its start refuses, and a filler of forty letters."""
SECRET_SETTINGS = (
    "webhook_secret_token",
    "admin_token",
    "webhook_hmac_secrets",
    "session_secret",
    "token_encryption_keys",
    "fyers_secret_id",
    "fyers_pin",
    "fyers_auth_code",
    "fyers_access_token",
    "notify_urls",
    "database_url",
    "redis_url",
)
ADDRESSES = frozenset({"database_url", "redis_url"})
"""Of these the password is the secret; NOTIFY_URLS are secret as a whole."""
MADE_AT_START = ("webhook_token", "admin_token", "session_secret")
"""The first start's files in INSTANCE_DIR."""
CLIENT_TOKEN = re.compile(rb"tvf_[A-Za-z0-9_-]{43}")
"""Known by its looks: whoever made it."""
MOST_BYTES = 64 << 20
"""Kept until a test's end; more is searched at once."""
GIVEN_TOKEN = "given-access-token-of-the-suite-7d1f40c8b2"
"""What live services of the suite order with, unless they log in. Fixed: a simulator may be a process of its own."""
CANARIES = {"FYERS_PIN": f"pin-{os.urandom(9).hex()}", "FYERS_SECRET_ID": f"app-secret-{os.urandom(9).hex()}"}
"""Settings of every started service that gives none itself."""


class Kind(StrEnum):
    ANSWER = "answer"
    LOG = "log"
    FILE = "file"
    DATABASE = "database"
    OUTPUT = "output"
    TRACE = "trace"


class Served(Protocol):
    """A started service: tests.e2e.service.Service."""

    port: int
    env: dict[str, str]
    directory: Path

    @property
    def instance(self) -> Path: ...
    @property
    def ended(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where a secret has to stand. `place` and `secret` are patterns of whole texts."""

    kind: Kind
    place: str
    secret: str
    why: str


ALLOWED = (
    Allowed(Kind.OUTPUT, r"clients (create|rotate)", "client token", "shown once, to the operator who asked"),
    *(
        Allowed(Kind.FILE, rf"(.*/)?{name}", rf"{name}|{setting}", "the first start's own file, mode 600")
        for name, setting in zip(
            MADE_AT_START, ("webhook_secret_token", "admin_token", "session_secret"), strict=True
        )
    ),
    Allowed(
        Kind.FILE, r"prometheus\.token", "admin_token", "a test's own, for the Prometheus that it starts"
    ),
)


@dataclass(frozen=True, slots=True)
class Hit:
    kind: Kind
    place: str
    secret: str
    spelling: str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}: {self.secret}, {self.spelling}"


@lru_cache(maxsize=4096)
def spellings(secret: str) -> tuple[tuple[str, bytes], ...]:
    """Plain, as JSON, URLs and HTML write it, in hex, and in base64 at each offset; each form once."""
    urls = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    urls |= {re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), u) for u in urls}
    found: dict[str, str] = {secret: "plain"}
    found |= dict.fromkeys({json.dumps(secret)[1:-1], secret.replace("&", "\\u0026")} - {secret}, "as JSON")
    found |= dict.fromkeys(urls - {*found}, "URL-encoded")
    found |= dict.fromkeys({secret.replace("&", "&amp;")} - {*found}, "as HTML")
    found[secret.encode().hex()] = "in hex"
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret.encode()).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[offset] : -2]  # without the characters that neighbours change
        found |= dict.fromkeys({inner, inner.replace("+", "-").replace("/", "_")}, f"base64 at {offset}")
    return tuple((name, form.encode()) for form, name in found.items())


class Watch:
    """The secrets of the present test and what it left behind."""

    def __init__(self, lasting: Mapping[str, str] | None = None) -> None:
        self._lasting = dict(lasting or {})
        self._secrets: dict[str, str] = {}
        self._evidence: dict[tuple[Kind, str], list[bytes]] = {}
        self._size = 0
        self._hits: dict[Hit, None] = {}
        self._services: list[Served] = []
        self._made: set[int] = set()

    def secret(self, name: str, value: str) -> None:
        if len(value) >= MIN_LENGTH and value not in NO_SECRETS:
            self._secrets.setdefault(value, name)

    def settings(self, values: Mapping[str, str]) -> None:
        """A service's settings, by their names in either case."""
        for key, value in values.items():
            name = key.lower()
            if name not in SECRET_SETTINGS or not value:
                continue
            if name in ADDRESSES:
                self._password(name, value)
                continue
            for part in value.split(","):
                self.secret(name, part.strip())
                self.secret(name, part.strip().removeprefix("whsec_"))
                self._password(name, part)

    def _password(self, name: str, address: str) -> None:
        with suppress(ValueError):
            if password := urlsplit(address).password:
                self.secret(f"password of {name}", password)
                self.secret(f"password of {name}", unquote(password))

    def service(self, service: Served) -> None:
        """One that is being started; read when it has ended."""
        self.settings(service.env)
        if not any(s is service for s in self._services):
            self._services.append(service)

    def is_served(self, port: int) -> bool:
        return any(s.port == port for s in self._services)

    def saw(self, kind: Kind, place: str, data: bytes | str) -> None:
        """Evidence. What a test's clients got and what its processes wrote is searched at its end."""
        raw = data if isinstance(data, bytes) else data.encode(errors="replace")
        self._evidence.setdefault((kind, place), []).append(raw)
        self._size += len(raw)
        if self._size > MOST_BYTES:
            self._search()

    def files(self, directory: Path, paths: Iterable[Path], kind: Kind = Kind.FILE) -> None:
        for path in paths:
            with suppress(OSError):  # deleted meanwhile
                self.saw(kind, path.relative_to(directory).as_posix(), path.read_bytes())

    def hits(self, directory: Path | None = None, *, over: bool = False) -> list[Hit]:
        """What has been found since the last call: in what was seen, in the files of services that have ended (`over`:
        of all), and in the databases and logs below a test's `directory`. The secrets of this time end with it.
        """
        read: set[Path] = set()
        for service in self._services:
            self._made_by(service)
        for service in [s for s in self._services if over or s.ended]:
            self._services.remove(service)
            found = list(files_of(service.directory))
            read |= set(found)
            self.files(service.directory, found)
        if directory is not None:
            found = [p for p in files_of(directory) if p not in read and is_database_or_log(p)]
            self.files(directory, found, Kind.DATABASE)
        self._search()
        done = list(self._hits)
        self._hits.clear()
        self._secrets = {}
        for service in self._services:  # those of a whole module
            self.settings(service.env)
            self._made_by(service)
        return done

    def _made_by(self, service: Served) -> None:
        for name in MADE_AT_START:
            with suppress(OSError):
                self.secret(name, (service.instance / name).read_text().strip())

    def _search(self) -> None:
        for service in self._services:
            self._made_by(service)
        secrets = self._secrets | self._lasting
        for (kind, place), parts in self._evidence.items():
            data = b"\n".join(parts)
            for hit in search(kind, place, data, secrets):
                if not any(_allows(a, hit) for a in ALLOWED):
                    self._hits[_without_values(hit, secrets)] = None
        self._evidence.clear()
        self._size = 0


def search(kind: Kind, place: str, data: bytes, secrets: Mapping[str, str]) -> Iterator[Hit]:
    """Each secret once for each place, by the first spelling that is found. `secrets`: value to name."""
    for value, name in secrets.items():
        for spelling, form in spellings(value):
            if form in data:
                yield Hit(kind, place, name, spelling)
                break
    if CLIENT_TOKEN.search(data):
        yield Hit(kind, place, "client token", "plain")


def _allows(allowed: Allowed, hit: Hit) -> bool:
    fits = re.fullmatch(allowed.place, hit.place) and re.fullmatch(allowed.secret, hit.secret)
    return allowed.kind is hit.kind and bool(fits)


def _without_values(hit: Hit, secrets: Mapping[str, str]) -> Hit:
    place = CLIENT_TOKEN.sub(b"(client token)", hit.place.encode()).decode(errors="replace")
    for value, name in secrets.items():
        for _, form in spellings(value):
            place = place.replace(form.decode(), f"({name})")
    return Hit(hit.kind, place, hit.secret, hit.spelling)


def files_of(directory: Path) -> Iterator[Path]:
    """All that a service may have written: not the contract index, which is the broker's, nor the broker's ledger."""
    for root, folders, names in os.walk(directory):
        folders[:] = [f for f in folders if not f.startswith("contracts")]
        yield from (Path(root) / n for n in names if "ledger" not in n)


def is_database_or_log(path: Path) -> bool:
    name = path.name.removesuffix("-wal").removesuffix("-shm").removesuffix("-journal")
    return name.endswith((".sqlite3", ".db", ".log"))


WATCH = Watch({GIVEN_TOKEN: "given access token"} | {v: k.lower() for k, v in CANARIES.items()})
"""This process's."""
