"""The login pages on the simulated broker: real HTTP to it, fakes around."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import FyersLogin
from app.factory import create_app
from app.service.login import Login
from app.settings import Settings
from app.store.tokens import StoredTokens
from app.store.tokens_file import FileObject
from app.web.ports import Ports
from tests.builders import SCOPE
from tests.fake_clients import FakeClients
from tests.fake_store import FakeStore
from tests.fakes import FakeNotifier
from tests.fyers_sim import FyersSim, SimClock
from tests.unit.token_builders import KEY, sealed

ADMIN = "desk-admin-token"
MORNING = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
CALLBACK = "https://trader.example/fyers/callback"


NewDesk = Callable[..., "LoginDeskOfTests"]


class DeskClock:
    """The simulator's time, on which the monotonic one does not move: no deadline of a test passes."""

    def __init__(self, clock: SimClock) -> None:
        self.clock = clock

    def now(self) -> datetime:
        return self.clock()

    def monotonic(self) -> float:
        import time

        return time.monotonic()


class LoginDeskOfTests:
    """A service with its login pages, one browser of the operator and one token file."""

    def __init__(self, directory: Path, sim: FyersSim, *, secret: str = "simsecret", **settings: Any) -> None:
        assert isinstance(sim.clock, SimClock)
        self.sim, self.clock, self.notifier = sim, DeskClock(sim.clock), FakeNotifier()
        self.client = client = FyersClient(sim.base_url, sim.data_url, connect_timeout_s=5, read_timeout_s=5)
        self.tokens = StoredTokens(
            sealed(FileObject(directory / "tokens.json"), KEY), sim.tokens.app_id, self.clock, self.notifier
        )
        login = Login(FyersLogin(client, sim.tokens.app_id, secret, CALLBACK), self.tokens, self.clock)
        given = {
            "admin_token": ADMIN,
            "webhook_secret_token": "hook",
            "session_secret": "s" * 40,
            "fyers_app_id": sim.tokens.app_id,
            "instance_dir": directory,
        }
        self.clients = FakeClients(self.clock)
        self.app = create_app(
            ports=Ports(
                settings=Settings.model_validate(given | settings),
                clock=self.clock,
                store=FakeStore(self.clock, SCOPE),
                broker=None,  # type: ignore[arg-type] # no route of these tests asks for it
                contracts=None,  # type: ignore[arg-type]
                scope=SCOPE,
                tokens=self.tokens,
                notifier=self.notifier,
                reconcile=None,  # type: ignore[arg-type]
                desk=None,  # type: ignore[arg-type]
                login=login,
                clients=self.clients,
            )
        )
        self.browser = self.app.test_client()

    def close(self) -> None:
        self.client.close()

    def enter(self, browser: Any = None) -> Any:
        """The form post of the admin token."""
        answer = (browser or self.browser).post("/fyers/session", data={"token": ADMIN})
        assert answer.status_code == 303, answer.text
        return answer

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.browser.get("/fyers/login").text)
        assert found
        return found[1]

    def link(self, browser: Any = None) -> str:
        """The address of the page's link to Fyers."""
        found = re.search(
            r'href="([^"]+generate-authcode[^"]+)"', (browser or self.browser).get("/fyers/login").text
        )
        assert found
        return found[1].replace("&amp;", "&")

    def at_fyers(self, link: str) -> str:
        """What the browser does at Fyers: log in, and be sent to our callback. Returns its path and query."""
        reply = self.sim.tokens.redirect(_Query(dict(_pairs(link))))  # type: ignore[arg-type]
        target = dict(reply.headers)["Location"]
        assert target.startswith(CALLBACK)
        return target.removeprefix("https://trader.example")

    def logged_in(self) -> str:
        """Log the browser in; the access token that is used from now on."""
        self.enter()
        answer = self.browser.get(self.at_fyers(self.link()))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/fyers/login"), answer.text
        token = self.tokens.current(self.clock.now())
        assert token
        return token

    def bearer(self, method: str, path: str, body: object = None, token: str = ADMIN) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return self.app.test_client().open(path, method=method, json=body, headers=headers)


class _Query:
    def __init__(self, query: dict[str, str]) -> None:
        self.query = query


def _pairs(link: str) -> list[tuple[str, str]]:
    return [(k, v[0]) for k, v in parse_qs(urlsplit(link).query).items()]
