"""From a login to an order, over the end of the token and on every instance, judged by the broker's ledger."""

from __future__ import annotations

import base64
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from cryptography.fernet import Fernet

from tests.e2e.login_instances import APP, MORNING, SIX, Instances
from tests.e2e.service import ROOT, Answer, Service
from tests.fyers_sim import FyersSim, SimClock

pytestmark = pytest.mark.slow


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    clock = SimClock(MORNING, running=False)
    with (
        FyersSim(ledger=tmp_path / "l.jsonl", clock=clock, rate_limits=False, tokens=()) as sim,
        ExitStack() as stack,
    ):
        yield Instances(tmp_path, sim, clock, stack)


def test_the_token_ends_at_six_nothing_is_sent_and_a_new_login_serves_every_instance(
    instances: Instances,
) -> None:
    instances.log_in(0)
    for at in range(3):
        answer = instances.alert(at)
        assert answer.status_code == 200, answer.text
    instances.go_to(SIX - timedelta(seconds=1))
    assert instances.alert(1).status_code == 200
    assert len(instances.sim.ledger.orders()) == 4
    assert [n.pages for n in instances.notifiers] == [[], [], []]

    instances.go_to(SIX)
    asked = dict(instances.sim.ledger.counts)
    for at in range(3):
        answer = instances.alert(at)
        assert (answer.status_code, answer.json["code"]) == (503, "token_expired"), answer.text
        assert "Retry-After" in answer.headers
    assert dict(instances.sim.ledger.counts) == asked, "nobody asked the broker anything"
    assert [n.pages.count("token_expired") for n in instances.notifiers] == [1, 1, 1]

    instances.go_to(SIX + timedelta(hours=3))
    instances.log_in(2)
    for at in range(3):
        answer = instances.alert(at)
        assert answer.status_code == 200, answer.text
    assert len(instances.sim.ledger.orders()) == 7


def test_a_token_that_the_broker_revoked_is_replaced_on_running_instances_within_30_seconds(
    instances: Instances,
) -> None:
    instances.log_in(0)
    assert all(instances.alert(at).status_code == 200 for at in range(3))
    instances.sim.expire_tokens()
    assert instances.alert(1).status_code == 503
    instances.log_in(0)
    instances.sim_clock.advance(30)
    assert [instances.alert(at).status_code for at in range(3)] == [200, 200, 200]


# --- real processes --------------------------------------------------------------------------------------------


def form(service: Service, path: str, cookie: str = "", **fields: str) -> Answer:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    return service.request("POST", path, urlencode(fields).encode(), headers)


def log_in_by_browser(sim: FyersSim, service: Service) -> str:
    """The admin token, the link, Fyers' redirect, the callback. The auth code that came with it."""
    entered = form(service, "/fyers/session", token=service.token("admin_token"))
    assert entered.status == 303, entered.body
    cookie = entered.headers["set-cookie"].partition(";")[0]
    page = service.request("GET", "/fyers/login", headers={"Cookie": cookie}).body.decode()
    found = re.search(r'href="([^"]+generate-authcode[^"]+)"', page)
    assert found
    link = urlsplit(found[1].replace("&amp;", "&"))
    with closing(http.client.HTTPConnection("127.0.0.1", link.port, timeout=10)) as at_fyers:
        at_fyers.request("GET", f"{link.path}?{link.query}")
        sent_on = at_fyers.getresponse()
        sent_on.read()
    assert sent_on.status == 302
    back = urlsplit(sent_on.headers["Location"])
    assert (back.port, back.path) == (service.port, "/fyers/callback")
    done = service.request("GET", f"{back.path}?{back.query}", headers={"Cookie": cookie})
    assert (done.status, done.headers["location"]) == (303, "/fyers/login"), done.body
    again = service.request("GET", f"{back.path}?{back.query}", headers={"Cookie": cookie})
    assert (again.status, b"state_used" in again.body) == (403, True)
    return parse_qs(back.query)["auth_code"][0]


def live(sim: FyersSim, key: str, **more: str) -> dict[str, str]:
    return {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": APP,
        "FYERS_SECRET_ID": "simsecret",
        "TOKEN_ENCRYPTION_KEYS": key,
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "RECONCILE_INTERVAL_SECONDS": "0.3",
        "ENFORCE_MARKET_HOURS": "false",
        **more,
    }


def test_a_newcomer_logs_in_and_the_next_alert_is_an_order(sim: FyersSim, tmp_path: Path) -> None:
    key, new = (Fernet.generate_key().decode() for _ in range(2))
    with Service(tmp_path, live(sim, key)) as service:
        before = service.alert(strikeprice=24500, lots=1)
        assert before.status == 503, before.body
        assert "log in at /fyers/login" in service.get("/readyz").body["checks"]["token"]
        code = log_in_by_browser(sim, service)
        times = service.get("/readyz").body["token"]
        assert times["ends_at"].endswith("T06:00:00.000+05:30")
        assert service.wait_reconciled(20)
        after = service.alert(strikeprice=24500, lots=1, idempotency_key="after")
        assert after.status == 200, after.body
        service.stop()
        service.env["TOKEN_ENCRYPTION_KEYS"] = f"{new},{key}"
        assert "valid until" in flask(service, "tokens", "show")
        assert "re-encrypted" in flask(service, "tokens", "rotate")
        service.env["TOKEN_ENCRYPTION_KEYS"] = new
        service.start()
        assert service.alert(strikeprice=24500, lots=1, idempotency_key="restarted").status == 200
        assert len(sim.ledger.orders()) == 2
        secrets = [
            *sim.tokens._access,
            *sim.tokens._refresh,
            "simsecret",
            code,
            key,
            new,
            service.token("admin_token"),
        ]
        kept = service.log + "".join(
            p.read_bytes().decode("latin-1") for p in tmp_path.glob("instance/*.sqlite3*")
        )
        for secret in secrets:
            assert secret not in kept
            assert quote(secret, safe="") not in kept
            assert base64.b64encode(secret.encode()).decode().rstrip("=")[:-1] not in kept


def flask(service: Service, *words: str, given: str = "") -> str:
    """One command of the operator, with the service's own settings."""
    env = {"PATH": os.environ["PATH"], "INSTANCE_DIR": str(service.instance), **service.env}
    command = [sys.executable, "-m", "flask", "--app", "app.wsgi", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, input=given, check=False
    )
    return done.stdout + done.stderr


def test_login_in_a_terminal(sim: FyersSim, tmp_path: Path) -> None:
    service = Service(tmp_path, live(sim, Fernet.generate_key().decode()))
    assert "no token is stored" in flask(service, "tokens", "show")
    said = flask(service, "login", given="nonsense\n")
    assert "auth_code_invalid" in said
    code = sim.issue_auth_code()
    said = flask(service, "login", given=f"{code}\n")
    assert "logged in; the token is valid until" in said
    assert "/generate-authcode?client_id=SIMAPP-200" in said
    assert code not in said
    shown = flask(service, "tokens", "show")
    assert re.search(r"obtained .+ ago; valid until .+ 06:00 IST", shown), shown
    assert not any(token in shown for token in sim.tokens._access)


def test_two_services_share_a_token_in_gcs(sim: FyersSim, tmp_path: Path) -> None:
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.gcs_layer import GcsLayer

    key = Fernet.generate_key().decode()
    with GcsLayer() as gcs, ExitStack() as stack:
        env = live(sim, key, TOKEN_STORE="gcs", GCS_BUCKET_NAME=gcs.bucket, STORAGE_EMULATOR_HOST=gcs.url)
        services = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            services.append(stack.enter_context(Service(tmp_path / name, dict(env))))
        log_in_by_browser(sim, services[0])
        assert not list(tmp_path.glob("*/instance/tokens.json"))
        for service in services:
            assert service.wait_reconciled(25)
            assert service.get("/readyz").body["checks"]["token"] == "ok"
        # Only the one that did not log in places: to each the other's orders would be a stranger's, as they
        # have no database in common.
        answer = services[1].alert(strikeprice=24500, lots=1)
        assert answer.status == 200, answer.body
        assert len(sim.ledger.orders()) == 1
        assert not any(token.encode() in gcs.get("tokens.json") for token in sim.tokens._access)
