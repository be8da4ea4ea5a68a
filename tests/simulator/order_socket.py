"""The order websocket, on a loopback port of its own beside a FyersSim.

    with FyersSim() as sim, OrderSocketSim(sim) as socket:
        ...                                    # the service listens to socket.url
        sim.fill(order_id)                     # pushes an `orders` and a `trades` message

(D) the header `authorization: APPID:TOKEN`, 403 for a bad token and 404 for a wrong path; "ping" -> "pong"; the
subscription and its 1605; the raw shape of `orders` and `trades`, absent keys where there is nothing to say; nothing is
told again after a reconnect. (A) `positions` is never pushed.

`fault` is what the next connections meet, until it is changed; `drop()` ends those that stand.

| fault | what happens |
|---|---|
| refuse | 403, with the header's token in its body |
| redirect | 302 to a path of this same server |
| hang | the handshake is never answered |
| drip | the answer to the handshake comes a byte at a time, for ever |
| no_websocket | bytes that are no HTTP |
| close | closed by a frame right after the subscription |
| silent | subscribed, and then nothing ever, no pong either |
| rubbish | frames that are no JSON, no UTF-8, no object, unknown; then it goes on as usual |
| half_frame | a frame that promises more than comes |
| huge_frame | a frame that promises 2**40 bytes, and keeps sending |
| fragments | one message in fragments without an end |
| bad_frame | a reserved opcode |
| flood | order messages as fast as they go |
| expired | the message -99 of an expired token, then silence |
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.simulator.book import REJECTED, TRANSIT, Order
from tests.simulator.clock import IST
from tests.simulator.frames import CLOSE, TEXT, frame, read_frame, until_readable
from tests.simulator.money import num
from tests.simulator.wire import JsonObject, Request

if TYPE_CHECKING:
    from tests.fyers_sim import FyersSim

PATH = "/trade/v3"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_RUBBISH = (b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b'"orders"', b'{"new_key": {}}', b"[" * 20_000)


class OrderSocketSim:
    """A context manager; `close` ends every connection."""

    def __init__(self, sim: FyersSim, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._sim, self._tls = sim, tls
        self.fault = ""
        self.seen: Counter[str] = Counter()
        """connections, refused, subscribed, pings, pushed."""
        self.headers: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._subscribed: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0))
        self.url = f"{'wss' if tls else 'ws'}://{host}:{self._listener.getsockname()[1]}{PATH}"
        sim.exchange.watchers.append(self._push)
        self._thread = threading.Thread(target=self._accept, name="order-socket-sim", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._sim.exchange.watchers.remove(self._push)
        self.close_port()
        self.drop()

    def close_port(self) -> None:
        """Nobody is there any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(1)

    def drop(self) -> None:
        """Every connection ends, without a word."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def wait(self, is_so: Callable[[Counter[str]], bool], within_s: float = 10.0) -> bool:
        """Until the counts are so; False when they do not become so."""
        with self._changed:
            return self._changed.wait_for(lambda: is_so(self.seen), within_s)

    # -- the server's side

    def _saw(self, word: str) -> None:
        with self._changed:
            self.seen[word] += 1
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, self.fault), daemon=True).start()

    def _serve(self, connection: socket.socket, fault: str) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._changed:
                self._open.add(connection)
            with connection.makefile("rb", buffering=0) as stream:
                self._saw("connections")
                if self._shaken(connection, stream, fault):
                    self._talk(connection, stream, fault)
        except (OSError, ValueError, struct.error):
            pass  # the other side went away, or we did
        finally:
            with self._changed:
                self._open.discard(connection)
                self._subscribed.discard(connection)
            connection.close()

    def _shaken(self, connection: socket.socket, stream: socket.SocketIO, fault: str) -> bool:
        _, path, _ = stream.readline(8192).decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while line := stream.readline(8192).strip().decode("latin-1"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.headers.append(headers)
        if fault == "hang":
            self._closed.wait()
            return False
        if fault == "no_websocket":
            connection.sendall(b"\x00\x01 nonsense \xff\r\n\r\n")
            return False
        if fault == "drip":
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: ")
            while not self._closed.wait(0.02):
                connection.sendall(b"x")
            return False
        accepted = self._sim.tokens.accepts(Request("GET", path, {}, headers))
        status = "404 Not Found" if path != PATH else "" if accepted else "403 Forbidden"
        if fault == "refuse":
            status = "403 Forbidden"
        if fault == "redirect":
            status = f"302 Found\r\nLocation: {self.url}"
        if status:
            self._saw("refused")
            body = f"no: {headers.get('authorization', '')}".encode()
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            return False
        proof = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + _MAGIC).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
        )
        return True

    def _talk(self, connection: socket.socket, stream: socket.SocketIO, fault: str) -> None:
        while True:
            until_readable(connection)
            with self._changed:  # TLS takes no reader beside a writer, and two writers would mix their frames
                opcode, data = read_frame(stream)
            if opcode == CLOSE:
                return
            if data == b"ping":
                self._saw("pings")
                if fault not in ("silent", "expired"):
                    with self._changed:
                        connection.sendall(frame(b"pong"))
            elif opcode == TEXT and json.loads(data).get("T") == "SUB_ORD":
                if fault not in ("silent", "expired"):
                    done = {"code": 1605, "message": "Successfully subscribed", "s": "ok"}
                    with self._changed:  # who hears of it is told of the very next order
                        connection.sendall(frame(json.dumps(done).encode()))
                        if fault != "flood":  # whoever pushes must not wait for that one
                            self._subscribed.add(connection)
                self._spoil(connection, fault)
                self._saw("subscribed")

    def _spoil(self, connection: socket.socket, fault: str) -> None:
        send = connection.sendall
        if fault == "close":
            send(frame(struct.pack("!H", 1011) + b"going", CLOSE))
        elif fault == "expired":
            send(frame(b'{"type":"cn","code":-99,"message":"Token is expired","s":"error"}'))
        elif fault == "rubbish":
            for data in _RUBBISH:
                send(frame(data))
        elif fault == "half_frame":
            send(frame(b"x" * 200)[:50])
        elif fault == "huge_frame":
            send(bytes([0x80 | TEXT, 127]) + struct.pack("!Q", 2**40))
            while True:
                send(b"x" * 65_536)
        elif fault == "fragments":
            send(frame(b"x", TEXT, fin=False))
            while True:
                send(frame(b"x" * 1000, 0, fin=False))
        elif fault == "bad_frame":
            send(frame(b"x", 0x3))
        elif fault == "flood":
            self._saw("subscribed")
            one = frame(b'{"orders":{"id":"1"},"s":"ok"}')
            while True:
                send(one * 100)

    def _push(self, order: Order) -> None:
        """Called under the exchange's lock."""
        messages = [{"s": "ok", "orders": self._order(order)}]
        if order.filled and (trades := [t for t in self._sim.exchange.trades if t.order is order]):
            row = trades[-1].row(self._sim.exchange.client_id)
            trade = {"id_fill": row["tradeNumber"], "id": order.id, "qty_traded": row["tradedQty"]}
            messages.append({"s": "ok", "trades": {**trade, "price_traded": row["tradePrice"]}})
        with self._changed:
            for connection in self._subscribed:
                with contextlib.suppress(OSError):
                    for message in messages:
                        connection.sendall(frame(json.dumps(message).encode()))
                    self.seen["pushed"] += 1
            self._changed.notify_all()

    def _order(self, order: Order) -> JsonObject:
        instrument = order.intent.instrument
        said: JsonObject = {
            "client_id": self._sim.exchange.client_id,
            "exchange": instrument.exchange,
            "fy_token": instrument.fy_token,
            "id": order.id,
            "instrument": instrument.kind,
            "offline_flag": order.intent.offline,
            "oms_flag": "K:1",
            "ord_source": order.source,
            "ord_status": 90 if order.filled else 20,  # internal, and not what is meant
            "ord_type": order.kind,
            "ordertag": order.tag,
            "org_ord_status": order.status,
            "price_limit": num(order.limit_price),
            "price_stop": num(order.stop_price),
            "product_type": order.intent.product,
            "qty": order.qty,
            "qty_filled": order.filled,
            "qty_remaining": order.remaining,
            "segment": instrument.segment,
            "symbol": instrument.ticker,
            "time_epoch_oms": int(order.at.timestamp()),
            "time_oms": f"{order.at.astimezone(IST):%d-%b-%Y %H:%M:%S}",
            "tran_side": order.intent.side,
            "update_time_epoch_oms": int(time.time()),
            "validity": order.intent.validity,
        }
        if order.status not in (TRANSIT, REJECTED):
            said["id_exchange"] = f"11{order.serial:014d}"
        if order.filled:
            said["price_traded"] = num(order.value / order.filled)
        if order.message:
            said["oms_msg"] = order.message
        return said
