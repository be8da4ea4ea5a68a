"""A live service whose every secret is one of a kind, and the search for them in whatever it leaves behind."""

from __future__ import annotations

import base64
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from cryptography.fernet import Fernet

from tests.e2e.service import ROOT, Service
from tests.fyers_sim import FyersSim
from tests.leak_watch import spellings

APP = "SIMAPP-200"


def _secret(word: str) -> str:
    """With characters that URLs, JSON and base64 write differently."""
    return f"cnry-{word}/+&é {os.urandom(6).hex()}=".replace(" ", "-").replace("é", "")


@dataclass
class Canaries:
    """Each secret by its name. `settings` are those that the service is started with."""

    webhook: str = field(default_factory=lambda: _secret("webhook"))
    admin: str = field(default_factory=lambda: _secret("admin"))
    session: str = field(default_factory=lambda: _secret("session"))
    app_secret: str = field(default_factory=lambda: _secret("app"))
    pin: str = field(default_factory=lambda: _secret("pin"))
    given_token: str = field(default_factory=lambda: _secret("given"))
    redis: str = field(default_factory=lambda: "cnryredis" + os.urandom(6).hex())
    database: str = field(default_factory=lambda: "cnrydb" + os.urandom(6).hex())
    hmac: str = field(default_factory=lambda: base64.b64encode(os.urandom(32)).decode())
    fernet: str = field(default_factory=lambda: Fernet.generate_key().decode())
    others: dict[str, str] = field(default_factory=dict)
    """What came up later: the client's token, what the broker gave."""

    def settings(self, sim: FyersSim) -> dict[str, str]:
        return {
            "TRADING_MODE": "live",
            "LOG_LEVEL": "DEBUG",
            "WEBHOOK_SECRET_TOKEN": self.webhook,
            "ADMIN_TOKEN": self.admin,
            "SESSION_SECRET": self.session,
            "WEBHOOK_HMAC_SECRETS": f"whsec_{self.hmac}",
            "FYERS_APP_ID": APP,
            "FYERS_SECRET_ID": self.app_secret,
            "FYERS_PIN": self.pin,
            "FYERS_ACCESS_TOKEN": self.given_token,
            "TOKEN_ENCRYPTION_KEYS": self.fernet,
            "REDIS_URL": f"redis://:{self.redis}@127.0.0.1:1/0",
            "FYERS_API_URL": sim.base_url,
            "FYERS_DATA_URL": sim.data_url,
            "SYMBOL_MASTER_URL": sim.master_url,
            "ENFORCE_MARKET_HOURS": "false",
            "AUDIT_SEAL_SECONDS": "0.5",
        }

    def all(self) -> dict[str, str]:
        own = {k: v for k, v in vars(self).items() if isinstance(v, str)}
        return own | self.others

    def hits(self, evidence: Mapping[str, bytes]) -> list[str]:
        """Every secret that stands in a piece of evidence: where, which, and a little of what is around it."""
        found = []
        for (name, secret), (place, data) in product(self.all().items(), evidence.items()):
            for form in forms(secret):
                at = data.find(form)
                if at >= 0:
                    found.append(f"{place}: {name}: {data[max(0, at - 120) : at + len(form) + 40]!r}")
                    break
        return found


def forms(secret: str) -> Iterator[bytes]:
    return (form for _, form in spellings(secret))


@dataclass
class CanaryService(Service):
    """Its tokens come from the environment, and every answer is kept as it came over the wire."""

    canaries: Canaries = field(default_factory=Canaries)
    kept: list[bytes] = field(default_factory=list)

    def token(self, name: str) -> str:
        return {"webhook_token": self.canaries.webhook, "admin_token": self.canaries.admin}[name]

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            head = f"{method} {answer.status} {answer.getheaders()}\n".encode()
            self.kept.append(head + answer.read())
        except (
            http.client.HTTPException,
            OSError,
        ) as error:  # cut off in the middle of what it would not read
            self.kept.append(repr(error).encode())
            return 0
        else:
            return answer.status
        finally:
            connection.close()

    def flask(self, *words: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "INSTANCE_DIR": str(self.instance),
            **self.env,
        }
        command = [sys.executable, "-m", "flask", "--app", "app.wsgi", *words]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def evidence(self) -> dict[str, bytes]:
        """Answers, the log, and every file that the service wrote."""
        files = [p for p in Path(self.directory).rglob("*") if p.is_file() and "ledger" not in p.name]
        found = {str(p.relative_to(self.directory)): p.read_bytes() for p in files}
        return found | {f"answer {n} ({a[:24].decode(errors='replace')})": a for n, a in enumerate(self.kept)}
