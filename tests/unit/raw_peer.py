"""A TCP or TLS server whose every byte is scripted, for what a well-behaved HTTP server cannot do."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"s":"ok"}'


class Caller:
    """One accepted connection, as the script sees it. `number` counts connections from 0."""

    def __init__(self, peer: Peer, sock: socket.socket, number: int) -> None:
        self._peer = peer
        self.sock = sock
        self.number = number

    def request(self) -> bytes:
        """Read one whole request and note it; empty when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.sock.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self.sock.recv(65536)
        whole = head + b"\r\n\r\n" + body
        self._peer.note(self.number, whole)
        return whole

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, every_s: float = 0.02) -> None:
        """One byte at a time, until the client goes or the peer is closed."""
        for byte in data:
            self.sock.sendall(bytes([byte]))
            if self._peer.closing.wait(every_s):
                return

    def hang(self) -> None:
        self._peer.closing.wait(5)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Caller], None]


def answer_ok(caller: Caller) -> None:
    """Keep-alive for ever."""
    while caller.request():
        caller.say(OK)


class Peer:
    """Runs `script` on a thread per connection. `requests` holds (connection number, bytes) of each request."""

    def __init__(self, script: Script = answer_ok, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.requests: list[tuple[int, bytes]] = []
        self.connections = 0
        self.closing = threading.Event()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def bodies(self) -> list[bytes]:
        return [request.partition(b"\r\n\r\n")[2] for _, request in self.requests]

    def note(self, number: int, request: bytes) -> None:
        with self._lock:
            self.requests.append((number, request))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what was said is there
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            self.connections += 1
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
            self._script(Caller(self, sock, number))
        sock.close()

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.stop_listening()
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(1)
        for sock in list(self._socks):
            sock.close()


def self_signed(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server context for 127.0.0.1 and the file that a client has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "loopback.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # unread tickets would turn the close of a client into a reset
    context.load_cert_chain(path)
    return context, str(path)


def reset_after_request(caller: Caller) -> None:
    caller.request()
    caller.reset()
