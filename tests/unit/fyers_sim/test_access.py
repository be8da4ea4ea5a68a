"""The simulator over real HTTP: login, tokens, permission, limits and closed paths."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fyers_sim import FyersSim, SimClock
from tests.unit.fyers_sim.client import TICKER, Client, order


@pytest.mark.parametrize("header", ["", "t", "SIMAPP-200:wrong", "Bearer t", "SIMAPP-200:"])
def test_a_bad_token_is_401(sim: FyersSim, header: str) -> None:
    client = Client(sim, token=header)
    assert (client.place().status, client.place().json["code"]) == (401, -16)
    assert client.call("GET", "/api/v3/orders").json["message"] == "Could not authenticate the user"
    assert client.call("GET", f"/data/quotes?symbols={TICKER}").json["code"] == -15
    assert [line["answer"] for line in sim.ledger.orders()] == ["refused:-16"] * 2


def test_the_login_is_single_use_and_its_token_ends_at_six(
    sim: FyersSim, client: Client, clock: SimClock
) -> None:
    app_hash = hashlib.sha256(b"SIMAPP-200:simsecret").hexdigest()
    query = "client_id=SIMAPP-200&redirect_uri=http://localhost/cb&response_type=code&state=xyz"
    redirect = client.call("GET", f"/api/v3/generate-authcode?{query}")
    given = parse_qs(urlsplit(redirect.headers["Location"]).query)
    assert (redirect.status, given["state"]) == (302, ["xyz"])
    body = {"grant_type": "authorization_code", "appIdHash": app_hash, "code": given["auth_code"][0]}
    assert client.call("POST", "/api/v3/validate-authcode", {**body, "appIdHash": "x"}).json["code"] == -371
    tokens = client.call("POST", "/api/v3/validate-authcode", body).json
    assert tokens["s"] == "ok"
    assert client.call("POST", "/api/v3/validate-authcode", body).json["code"] == -437

    mine = Client(sim, token=f"SIMAPP-200:{tokens['access_token']}")
    assert mine.call("GET", "/api/v3/profile").json["data"]["fy_id"] == "XS00001"
    assert Client(sim, token=f"OTHER-200:{tokens['access_token']}").call("GET", "/api/v3/funds").status == 401
    clock.advance(20 * 3600)
    assert mine.call("GET", "/api/v3/funds").status == 401

    refresh = {"appIdHash": app_hash, "refresh_token": tokens["refresh_token"], "pin": "1234"}
    assert client.call("POST", "/api/v3/validate-refresh-token", {**refresh, "pin": "0"}).json["code"] == -501
    fresh = client.call("POST", "/api/v3/validate-refresh-token", refresh).json
    assert "refresh_token" not in fresh
    mine.token = f"SIMAPP-200:{fresh['access_token']}"
    assert mine.call("GET", "/api/v3/funds").json["fund_limit"][9]["title"] == "Available Balance"
    assert mine.call("POST", "/api/v3/logout").json["s"] == "ok"
    assert mine.call("POST", "/api/v3/logout").json["message"] == "Token is Invalid or Expired"


def test_tokens_may_end_in_mid_session(sim: FyersSim, client: Client) -> None:
    sim.faults.next("GET /orders", "auth_401")
    assert client.call("GET", "/api/v3/orders").status == 401
    assert client.call("GET", "/api/v3/orders").status == 200
    sim.expire_tokens()
    assert client.place().json["code"] == -16


def test_an_old_app_may_read_but_not_order(sim: FyersSim, client: Client) -> None:
    old = Client(sim, token="OLDAPP-100:t")
    assert old.book() == []
    answer = old.place()
    assert (answer.status, answer.json["code"]) == (400, -50)
    assert answer.json["message"].endswith("Algo orders are not allowed from this app OLDAPP-100")
    sim.order_permission = False
    assert client.place().json["code"] == -50
    assert client.book() == []


def test_rate_limits_per_second_minute_and_day(clock: SimClock) -> None:
    with FyersSim(clock=clock, fsync=False) as sim:
        client = Client(sim)
        codes = [client.place().status for _ in range(11)]
        assert codes == [200] * 10 + [429]
        clock.advance(0.75)
        refused = client.place()
        assert (refused.json["code"], refused.headers["Retry-After"]) == (-429, "1")
        assert refused.headers["X-Retry-After-Ms"] == "250"
        assert client.call("GET", "/api/v3/funds").status == 429
        sim.limits.per_minute = 12
        clock.advance(1)
        assert [client.call("GET", "/api/v3/funds").status for _ in range(3)] == [200, 200, 429]
        for _ in range(3):
            clock.advance(61)
            assert [client.call("GET", "/api/v3/funds").status for _ in range(10)] == [200] * 10
            clock.advance(2)
            assert [client.call("GET", "/api/v3/funds").status for _ in range(3)] == [200, 200, 429]
        clock.advance(3600)
        assert client.call("GET", "/api/v3/funds").status == 429, "blocked until midnight"
        clock.advance(86400)
        assert client.call("GET", "/api/v3/funds").status == 200


def test_paths_that_the_firewall_blocks_and_paths_that_are_not_there(client: Client) -> None:
    assert b"Attention Required" in client.call("POST", "/api/v3/orders", order()).body
    assert client.call("POST", "/data/quotes", {}).status == 403
    assert client.call("GET", "/api/v3/holdings").status == 404
