"""Somebody who has no token, at the addresses that the trader's own alerts come from."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import secrets
import selectors
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.web.middleware.address import TRADINGVIEW
from tests.e2e.service import Service
from tests.limits import size
from tests.unit.test_address import ALLOWED, OWN_PROXIES
from tests.unit.web_desk import WebDesk

pytestmark = pytest.mark.slow
A_SECOND, SECONDS, CONNECTIONS = 1000, size(30, 4), 64
EVERY_S = 0.25
ANSWERED_WITHIN_S = 2.2
"""TradingView gives up after three seconds, of which the way to India takes 0.7."""
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
ALERT = {
    "symbol": "NIFTY",
    "strikeprice": 24500,
    "optionType": "CE",
    "expiry": "WEEKLY",
    "action": "BUY",
    "lots": 1,
}


def wrong(dice: random.Random) -> bytes:
    body = json.dumps({**ALERT, "token": secrets.token_urlsafe(32)}).encode()
    head = f"POST /webhook HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, {dice.choice(TRADINGVIEW)}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def attack(port: int, seconds: float, out: Any) -> None:
    """So many a second, whether or not answers come; a connection that is closed is opened again."""
    dice, seen = random.Random(3), Counter[str]()
    socks: dict[int, socket.socket] = {}
    left: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector:

        def connect(n: int) -> None:
            socks[n] = socket.create_connection(("127.0.0.1", port), timeout=5)
            socks[n].setblocking(False)
            left[n] = b""
            selector.register(socks[n], selectors.EVENT_READ, n)

        def read(n: int) -> None:
            data = b""
            with suppress(OSError):
                data = socks[n].recv(65536)
            seen.update(found.decode() for found in STATUS.findall(data))
            if not data:
                selector.unregister(socks[n])
                socks[n].close()
                connect(n)

        for n in range(CONNECTIONS):
            connect(n)
        began, sent = time.monotonic(), 0
        while (gone := time.monotonic() - began) < seconds:
            for key, _ in selector.select(0.001):
                read(key.data)
            while sent < gone * A_SECOND:
                n = sent % CONNECTIONS
                left[n] += wrong(dice)
                with suppress(OSError):
                    left[n] = left[n][socks[n].send(left[n]) :]
                sent += 1
    out.send((sent, time.monotonic() - began, dict(seen)))


def test_the_traders_alerts_pass_beside_a_thousand_wrong_tokens_a_second(
    tmp_path: Path, record_property: Any
) -> None:
    limits = ("RISK_MAX_ORDERS_PER_MINUTE", "RISK_MAX_ORDERS_PER_HOUR", "RISK_RUNAWAY", "RISK_MAX_OPEN_LOTS")
    env = dict.fromkeys(limits, "") | {"IP_ALLOWLIST": "tradingview", "TRUSTED_PROXY_HOPS": "1"}
    fork = multiprocessing.get_context("fork")
    with Service(tmp_path, env) as service:
        ours, theirs = fork.Pipe()
        attacker = fork.Process(target=attack, args=(service.port, SECONDS, theirs))
        attacker.start()
        took: list[float] = []
        give_up = time.monotonic() + SECONDS - 1
        while time.monotonic() < give_up:
            body = {**ALERT, "token": service.token("webhook_token"), "strategy": str(len(took))}
            began = time.monotonic()
            answer = service.request(
                "POST", "/webhook", json.dumps(body).encode(), {"X-Forwarded-For": TRADINGVIEW[0]}
            )
            took.append(time.monotonic() - began)
            assert answer.status == 200, answer.body
            time.sleep(EVERY_S)
        assert ours.poll(SECONDS + 30)
        sent, seconds, seen = ours.recv()
        attacker.join()
        orders = service.get("/api/v1/orders?limit=200").body["orders"]
    took.sort()
    record_property(
        "measured",
        f"{sent / seconds:.0f} wrong tokens a second for {seconds:.0f} s, answered {seen}; {len(took)} of "
        f"{len(took)} alerts 200, median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s",
    )
    assert took[-1] < ANSWERED_WITHIN_S
    assert sent >= 0.95 * A_SECOND * seconds
    assert set(seen) <= {"401", "429"}
    assert seen["429"] > seen["401"]
    assert len(orders) == min(200, len(took))


SHAPES = 200
WORDS = (
    *ALLOWED,
    *TRADINGVIEW,
    "52.89.214.238:443",
    "::ffff:52.89.214.238",
    '"52.89.214.238"',
    "unknown",
    "",
)
MORE = (
    "for=52.89.214.238",
    "052.089.214.238",
    "52.89.214.238;",
    "\t52.89.214.238",
    "127.0.0.1, 127.0.0.1",
    "::",
)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_200_spoofed_shapes_at_the_door(tmp_path: Path, hops: int, record_property: Any) -> None:
    """With the right token, and from an address that is on no list: each proxy of ours appends whom it saw."""
    desk = WebDesk(tmp_path, ip_allowlist=",".join((*ALLOWED[1:], "tradingview")), trusted_proxy_hops=hops)
    dice, tried = random.Random(hops), set[str]()
    while len(tried) < SHAPES:
        said = ", ".join(dice.choice(WORDS + MORE) for _ in range(dice.randint(1, 6)))
        if said in tried:
            continue
        tried.add(said)
        chain = ["6.6.6.6", *OWN_PROXIES]
        seen = ", ".join([said, *chain[:hops]])
        body = json.dumps({**ALERT, "token": "desk-webhook-token", "strategy": str(len(tried))})
        answer = desk.client.post(
            "/webhook",
            data=body,
            headers={"X-Forwarded-For": seen},
            environ_base={"REMOTE_ADDR": chain[hops]},
        )
        assert answer.status_code == 403, (seen, answer.text)
    assert desk.broker.ledger == []
    record_property("measured", f"{hops} hops: {len(tried)} shapes, 0 passed")
    right = {"X-Forwarded-For": ", ".join(["6.6.6.6", TRADINGVIEW[0], *OWN_PROXIES][: hops + 1])}
    peer = {"REMOTE_ADDR": OWN_PROXIES[hops - 1] if hops else TRADINGVIEW[0]}
    body = json.dumps({**ALERT, "token": "desk-webhook-token"})
    answer = desk.client.post("/webhook", data=body, headers=right, environ_base=peer)
    assert answer.status_code == 200, answer.text
