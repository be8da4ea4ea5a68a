"""Live mode on the simulated broker, judged by the broker's own ledger."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.e2e.service import Service
from tests.fyers_sim import FyersSim

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("action", "side"), [("BUY", 1), ("SELL", -1)])
def test_one_alert_is_one_line_in_the_ledger(sim: FyersSim, service: Service, action: str, side: int) -> None:
    answer = service.alert(strikeprice=24500, lots=1, action=action)
    assert answer.status == 200, answer.body
    (line,) = sim.ledger.orders()
    sent = line["body"]
    assert sent["symbol"] == answer.body["symbol"]
    assert isinstance(sent["qty"], int)
    assert (sent["qty"], sent["side"], sent["type"]) == (65, side, 2)
    assert (sent["productType"], sent["validity"]) == ("INTRADAY", "DAY")
    assert (sent["stopLoss"], sent["takeProfit"], sent["legType"]) == (15.0, 25.0, 1)
    assert re.fullmatch(r"[A-Za-z0-9]{1,20}", sent["orderTag"])


def test_exit_sells_what_is_held_once_and_nothing_of_a_hand(sim: FyersSim, service: Service) -> None:
    for key in ("one", "two"):
        assert service.alert(strikeprice=24500, lots=1, idempotency_key=key).status == 200
    ticker = sim.ledger.orders()[0]["body"]["symbol"]
    sim.place_by_hand(ticker, 1, 130, "INTRADAY")
    out = service.alert(strikeprice=24500, action="EXIT")
    assert (out.status, out.body["quantity"]) == (200, 130), out.body
    again = service.alert(strikeprice=24500, action="EXIT", idempotency_key="again")
    assert (again.status, again.body["code"]) == (422, "nothing_to_exit"), again.body["detail"]
    sold = [line["body"] for line in sim.ledger.orders() if line["body"]["side"] == -1]
    assert [(s["symbol"], s["qty"]) for s in sold] == [(ticker, 130)]
    assert "stopLoss" not in sold[0]


def said(service: Service, head: str, body: bytes) -> bytes:
    """The status line's answer to bytes as they are; afterwards our side has nothing more to say."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as wire:
        wire.sendall(
            f"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n".encode() + body
        )
        wire.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: wire.recv(65536), b""))


def test_a_length_that_lies_is_refused_and_sends_nothing(sim: FyersSim, service: Service) -> None:
    fields = {"token": service.token("webhook_token"), "symbol": "NIFTY", "strikeprice": 24500, "lots": 1}
    body = json.dumps({**fields, "optionType": "CE", "expiry": "WEEKLY", "action": "BUY"}).encode()
    chunk = b"%x\r\n%s\r\n0\r\n\r\n"
    chunked = "Transfer-Encoding: chunked"
    for head, sent in (
        ("Content-Length: 10", body),
        (f"Content-Length: {len(body) + 10}", body[:-1]),
        ("Content-Length: 70000", body),
        ("Content-Length: ten", body),
        ("Content-Length: -1", body),
        ("X-No-Length: 1", body),
        (chunked, body),
        (f"{chunked}\r\nContent-Length: 10", chunk % (len(body), body)),
        (chunked, chunk % (len(body) + 70_000, b" " * 70_000 + body)),
    ):
        answer = said(service, head, sent)
        assert re.match(rb"HTTP/1.1 4[01][0-9] ", answer), (head, answer[:200])
    assert sim.ledger.orders() == []
    assert said(service, chunked, chunk % (len(body), body)).startswith(b"HTTP/1.1 200 ")
    assert len(sim.ledger.orders()) == 1
