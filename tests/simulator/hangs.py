"""Peers that accept nothing: a connect that never ends and a TLS handshake that is never answered."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class HangAtConnect:
    """A listening socket whose queue is full and never emptied: a further connect gets no answer at all.

    Linux drops the SYN while the accept queue is full, so the client's connect time-out is what ends it.
    `address` is (host, port). The queue is filled by connections of our own.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listener = socket.socket()
        self._listener.bind((host, 0))
        self._listener.listen(0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._fillers = self._fill()

    def _fill(self) -> list[socket.socket]:
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.settimeout(0.15)
            fillers.append(filler)
            try:
                filler.connect(self.address)
            except OSError:
                break  # this one is already waiting in vain: the queue is full
        return fillers

    @property
    def url(self) -> str:
        """The address as an http URL."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def close(self) -> None:
        """Let go of the sockets."""
        for filler in self._fillers:
            filler.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HangAtTls:
    """Accepts TCP and reads, but never says a word: the client waits in its handshake (or for its answer)."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listener = socket.socket()
        self._listener.bind((host, 0))
        self._listener.listen(64)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)

    @property
    def url(self) -> str:
        """The address as an https URL."""
        return f"https://{self.address[0]}:{self.address[1]}"

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return len(self._peers)

    def close(self) -> None:
        """Stop accepting and drop every peer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(1)
        for peer in self._peers:
            peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
