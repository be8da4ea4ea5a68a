"""The simulator over real HTTP: what its faults do to answers and orders."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from tests.fyers_sim import FyersSim, SimClock
from tests.simulator.book import CANCELLED, PENDING, REJECTED
from tests.simulator.faults import NAMES, make_fault
from tests.unit.fyers_sim.client import Client

_ANSWERED = {
    "no_ack": 200,
    "html_200": 200,
    "cloudflare_403": 403,
    "html_502": 502,
    "html_503": 503,
    "http_500": 500,
    "truncated": 200,
    "custom": 418,
}
_LOST = {
    "hang": (TimeoutError, http.client.RemoteDisconnected),
    "reset": (ConnectionResetError,),
    "disconnect": (http.client.RemoteDisconnected,),
    "short_body": (http.client.IncompleteRead,),
}


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize("name", sorted(_ANSWERED))
def test_a_spoilt_answer_with_and_without_an_order(
    sim: FyersSim, client: Client, name: str, created: bool
) -> None:
    sim.faults.next_order(f"{name}_created" if created else name, status=418, body="teapot")
    answer = client.place()

    assert answer.status == _ANSWERED[name]
    if name not in ("no_ack", "http_500"):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid|delimiter"):
            json.loads(answer.body)
    (line,) = sim.ledger.orders()
    assert (line["order_id"] is not None) == created
    assert len(client.book()) == created
    assert (line["fault"], line["answer"]) == (f"{name}_created" if created else name, name)
    assert client.place().json["code"] == 1101, "one-shot"


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize("name", sorted(_LOST))
def test_a_lost_answer_with_and_without_an_order(sim: FyersSim, name: str, created: bool) -> None:
    sim.faults.next_order(f"{name}_created" if created else name, seconds=5)
    client = Client(sim, timeout_s=0.15 if name == "hang" else 3)
    with pytest.raises(_LOST[name]):
        client.place()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.orders()) == 1)
    assert [line["order_id"] is not None for line in sim.ledger.orders()] == [created]
    assert len(Client(sim).book()) == created


def test_a_reset_before_the_body_was_read(sim: FyersSim, client: Client) -> None:
    sim.faults.next_order("reset_unread")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.place()
    assert [line["answer"] for line in sim.ledger.orders()] == ["reset_unread"]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("rate_429", 429, -429),
        ("auth_401", 401, -16),
        ("algo_restricted", 400, -50),
        ("bad_symbol", 400, -50),
        ("rms_reject", 400, -99),
    ],
)
def test_refusals_as_faults(sim: FyersSim, client: Client, name: str, status: int, code: int) -> None:
    sim.faults.next_order(name, seconds=3)
    answer = client.place()
    assert (answer.status, answer.json["code"], answer.json["s"]) == (status, code, "error")
    assert (answer.headers.get("Retry-After") == "3") == (status == 429)
    assert sim.ledger.placed() == []


@pytest.mark.parametrize(("fill_mode", "late_s"), [("rest", 0.0), ("instant", 0.0), ("instant", 5.0)])
def test_a_rejection_that_carries_an_id_never_trades(
    sim: FyersSim, client: Client, fill_mode: str, late_s: float
) -> None:
    sim.faults.next_order("rms_reject_with_id", appear_after=late_s)
    sim.fill_mode = fill_mode
    answer = client.place().json
    assert answer["code"] == -99
    sim.advance(late_s + 1)
    (row,) = client.book()
    assert (row["id"], row["status"], row["filledQty"]) == (answer["id"], REJECTED, 0)
    assert client.call("GET", "/api/v3/tradebook").json["tradeBook"] == []
    assert client.call("GET", "/api/v3/positions").json["netPositions"] == []


def test_a_late_order_goes_by_the_fill_mode_of_its_own_time(sim: FyersSim, client: Client) -> None:
    sim.faults.next_order("late_no_ack", appear_after=30)
    client.place()
    sim.fill_mode = "reject_async"  # another test's, beside it
    sim.advance(31)
    (row,) = client.book()
    assert row["filledQty"] > 0


def test_slow_acts_after_the_wait_and_slow_created_before(sim: FyersSim) -> None:
    sim.faults.next_order("slow", seconds=30)
    with pytest.raises(TimeoutError):
        Client(sim, timeout_s=0.1).place()
    assert sim.ledger.orders() == []
    sim.release_hangs()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 1), "created though the client had gone"

    sim.faults.next_order("slow_created", seconds=30)
    with pytest.raises(TimeoutError):
        Client(sim, timeout_s=0.1).place()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 2)


def test_dripping_headers_and_body_arrive_whole(sim: FyersSim, client: Client) -> None:
    for name in ("drip_body", "drip_headers"):
        sim.faults.next_order(name, seconds=0.002)
        began = time.monotonic()
        assert client.place().json["code"] == 1101
        assert time.monotonic() - began > 0.1, "two milliseconds a byte, and either part has over 70"


def test_a_kept_alive_connection_closed_without_a_word(sim: FyersSim, client: Client) -> None:
    sim.faults.next("GET /orders", "close_after")
    answer = client.call("GET", "/api/v3/orders")
    assert "Connection" not in answer.headers
    assert isinstance(client.connection.sock, socket.socket)
    assert client.connection.sock.recv(1) == b""
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        client.place()
    assert sim.ledger.orders() == []


def test_one_connection_carries_many_requests(sim: FyersSim, client: Client) -> None:
    for _ in range(20):
        client.call("GET", "/api/v3/funds")
    chunked = iter([b'{"symbol":', b'"NSE:NOPE"}'])
    client.connection.request("POST", "/api/v3/orders/sync", chunked, {"Authorization": "SIMAPP-200:t"})
    assert json.loads(client.connection.getresponse().read())["message"] == "The input symbol is invalid."
    assert sim.server.accepted == 1
    assert sim.ledger.counts["GET /funds"] == 20
    client.call("GET", "/api/v3/funds", Connection="close")
    client.call("GET", "/api/v3/funds")
    assert sim.server.accepted == 2


def test_faults_on_reads_and_their_order(sim: FyersSim, client: Client) -> None:
    client.place()
    sim.faults.next("GET /orders", "empty")
    assert client.book() == []
    sim.faults.set("GET /positions", "html_503")
    sim.faults.next("GET /positions", "html_200")
    assert [client.call("GET", "/api/v3/positions").status for _ in range(3)] == [200, 503, 503]
    sim.faults.clear("GET /positions")
    assert len(client.positions()) == 1
    sim.faults.set("*", "http_500")
    assert client.call("GET", "/data/marketStatus").status == 500
    sim.faults.clear()
    with pytest.raises(ValueError, match="expected one of"):
        sim.faults.next_order("gremlins")


def test_faults_on_cancel_and_exit_leave_their_trace(sim: FyersSim, client: Client) -> None:
    sim.fill_mode = "rest"
    order_id = client.place().json["id"]
    sim.faults.next("DELETE /orders/sync", "html_502")
    assert client.call("DELETE", f"/api/v3/orders/{order_id}/sync").status == 502
    assert client.book()[0]["status"] == PENDING
    sim.faults.next("DELETE /orders/sync", "html_502_created")
    assert client.call("DELETE", f"/api/v3/orders/{order_id}/sync").status == 502
    assert client.book()[0]["status"] == CANCELLED
    assert [line["fault"] for line in sim.ledger.ops("cancel")] == ["html_502", "html_502_created"]


def test_every_fault_name_answers_or_hangs_up(sim: FyersSim) -> None:
    for name in sorted(NAMES):
        sim.faults.queue("POST /orders/sync", make_fault(name, seconds=0.001))
        with contextlib.suppress(OSError, http.client.HTTPException):
            Client(sim, timeout_s=2).place()
    assert [line["fault"] for line in sim.ledger.orders()] == sorted(NAMES)
    created = {line["fault"] for line in sim.ledger.placed()}
    assert created == {name for name in NAMES if make_fault(name).carries_out}


def test_closing_ends_a_hang_at_once(clock: SimClock) -> None:
    sim = FyersSim(clock=clock)
    sim.faults.next_order("hang_created", seconds=60)
    ended: list[BaseException] = []

    def post() -> None:
        try:
            Client(sim, timeout_s=30).place()
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    assert sim.ledger.wait_for(lambda ledger: len(ledger.placed()) == 1)
    sim.close()
    thread.join(2)
    assert len(ended) == 1
    assert len(sim.ledger.placed()) == 1


def test_many_clients_at_once_lose_and_double_nothing(sim: FyersSim) -> None:
    ids: list[str] = []

    def post() -> None:
        client = Client(sim)
        ids.extend(client.place().json["id"] for _ in range(10))
        client.connection.close()

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 80
    assert sorted(line["order_id"] for line in sim.ledger.placed()) == sorted(ids)
    assert sim.positions()[0]["netQty"] == 80 * 65
