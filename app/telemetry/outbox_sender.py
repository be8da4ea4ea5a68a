"""The job that empties the outbox: it claims what is due, and a child process sends it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from app.errors import ServiceError, StoreUnavailable
from app.service.notices import CLAIM_LEASE, Channel, Outbox, Parcel
from app.service.ports import Clock

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
CHILD = "app.telemetry.outbox_child"
IDLE_S = 120.0
"""Without anything to send for so long the child goes: its libraries take as much memory as the service."""
STUCK_S = 50.0
"""A parcel without an answer for so long: the child is replaced. Before LOST_AFTER of the outbox."""
RENEW_S = CLAIM_LEASE.total_seconds() / 3
RENEW_AGAIN_S = 1.0
"""After a renewal that the database did not take."""
MOST_RECEIPTS_BYTES = 200_000
KEPT_BYTES = 50_000


class Child:
    """The sending process, started when there is something to send. `ended` is told how each parcel ended,
    None where it was not begun.
    """

    def __init__(self, receipts: Path, clock: Clock, ended: Callable[[str, str, bool | None], None]) -> None:
        self._receipts, self._clock, self._ended = receipts, clock, ended
        self._process: subprocess.Popen[str] | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], float] = {}
        """(ref, channel) without an answer, in their order, and since when. Each process has its own."""
        self._last = 0.0

    def send(self, parcels: Sequence[tuple[Parcel, str]]) -> None:
        """Hand over; returns at once. Raises OSError when there can be no child."""
        with self._lock:
            process = self._running()
            self._last = self._clock.monotonic()
            assert process.stdin is not None
            for parcel, url in parcels:
                self._open[parcel.ref, parcel.channel] = self._last
                fields = {name: getattr(parcel, name) for name in Parcel.__slots__}
                process.stdin.write(json.dumps(fields | {"url": url}) + "\n")
            process.stdin.flush()

    def tend(self) -> None:
        """Replace one that is stuck, let go of one that has nothing to do."""
        with self._lock:
            process, now = self._process, self._clock.monotonic()
            if process is None or self._pid != os.getpid():
                return
            stuck = any(now - since > STUCK_S for since in list(self._open.values()))
            if stuck:
                process.kill()
            if stuck or process.poll() is not None or (not self._open and now - self._last > IDLE_S):
                self._close()

    @property
    def is_sending(self) -> bool:
        """It has parcels without an answer. A fork has none, whatever its parent had."""
        return self._pid == os.getpid() and bool(self._open)

    def close(self) -> None:
        with self._lock:
            self._close()

    def receipts(self) -> list[str]:
        """Refs that were sent, as far as this host knows."""
        try:
            text = self._receipts.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        if len(text) > MOST_RECEIPTS_BYTES and not self._open:
            with contextlib.suppress(OSError):  # a full disk must not keep what is due from being sent
                self._receipts.write_text(text[-KEPT_BYTES:].partition("\n")[2], encoding="utf-8")
        return text.split("\n")

    def _close(self) -> None:
        process, self._process = self._process, None
        self._open = {}
        if process is not None and self._pid == os.getpid() and process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                log.debug("the sending process had ended by itself")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._pid == os.getpid() and self._process.poll() is None:
            return self._process
        self._close()
        with contextlib.suppress(OSError):  # as above: it sends without receipts
            self._receipts.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", CHILD, str(self._receipts.resolve())]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a library's complaint may hold an address, and that is a secret
            text=True,
            start_new_session=True,
        )
        try:
            listen = partial(self._listen, process, self._open)
            threading.Thread(target=listen, daemon=True, name="sent").start()
        except RuntimeError as error:  # no thread to be had, and nobody would hear what was sent
            with process:
                process.kill()
            raise OSError(str(error)) from None
        self._process, self._pid = process, os.getpid()
        return process

    def _listen(self, process: subprocess.Popen[str], opened: dict[tuple[str, str], float]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                said = json.loads(line)
                opened.pop((said["ref"], said["channel"]), None)
                self._ended(said["ref"], said["channel"], said["sent"])
        process.wait()
        self._give_back(opened)

    def _give_back(self, opened: dict[tuple[str, str], float]) -> None:
        """What an ended process has not begun. It says how a parcel ended before it begins the channel's next one, so that
        only the first of each channel may have gone out unsaid: that one is the outbox's to judge.
        """
        begun: set[str] = set()
        for ref, channel in list(opened):
            if channel in begun:
                self._ended(ref, channel, None)
            begun.add(channel)


class Sender:
    """One pass: from the audit trail to notices, from notices to parcels, from parcels to the child."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Sequence[tuple[Channel, str]],
        receipts: Path,
        clock: Clock,
        owner: str,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._outbox, self._clock, self._pause = outbox, clock, pause
        self._owner, self._owner_pid = owner, os.getpid()
        self._renewing_pid = 0
        self._lock = threading.Lock()
        self._channels = [c for c, _ in channels]
        self._urls = {c.id: url for c, url in channels}
        self._names = {c.id: c.name for c, _ in channels}
        self.child = Child(receipts, clock, self._settle)

    def __call__(self) -> str:
        """Raises StoreUnavailable. The job's lease is what makes it the only one."""
        self.child.tend()
        if self.child.is_sending:
            self._keep_claims(self._own_name())
        if self._outbox.is_idle(self._clock.now()):
            return "nothing to tell"
        made = self._outbox.derive(self._clock.now())
        owner = self._own_name()
        parcels = self._outbox.hand_out(self._channels, owner, self.child.receipts())
        if parcels:
            try:
                self.child.send([(p, self._urls[p.channel]) for p in parcels])
                self._keep_claims(owner)
            except OSError:
                log.warning("notifications cannot be sent now: there is no process to send them")
                for parcel in parcels:
                    self._settle(parcel.ref, parcel.channel, False)
        return f"{made} noticed in the audit trail, {len(parcels)} messages handed over"

    def _own_name(self) -> str:
        """Another one after a fork: who renewed for a dead process too would keep its parcels from their heir."""
        if self._owner_pid != os.getpid():
            self._owner, self._owner_pid = secrets.token_hex(8), os.getpid()
        return self._owner

    def _keep_claims(self, owner: str) -> None:
        """From a thread while the child sends: the next pass may be another process's, which must not send it too."""
        with self._lock:
            if self._renewing_pid == os.getpid():
                return
            renewing = threading.Thread(
                target=self._renew, args=(owner,), daemon=True, name=f"claims {owner}"
            )
            try:
                renewing.start()
            except RuntimeError as error:  # no thread to be had: the next pass tries again
                log.warning("the claims of notifications are not renewed now: %s", error)
                return
            self._renewing_pid = os.getpid()

    def _renew(self, owner: str) -> None:
        pause_s = RENEW_S
        while True:
            self._pause(pause_s)
            self.child.tend()  # the passes may all be another's by now, and this child is only ours to end
            with self._lock:  # so that nobody relies on this thread once it has seen nothing more to do
                if not self.child.is_sending:
                    self._renewing_pid = 0
                    return
            pause_s = RENEW_S if self._renewed(owner) else RENEW_AGAIN_S

    def _renewed(self, owner: str) -> bool:
        try:
            self._outbox.renew(owner)
        except StoreUnavailable as error:
            log.warning("the claims of notifications could not be renewed: %s", error.code)
            return False
        except Exception:  # this thread is the only one: the next renewal must still be tried
            log.exception("the claims of notifications could not be renewed")
            return False
        return True

    def _settle(self, ref: str, channel: str, sent: bool | None) -> None:
        if sent is False:
            log.warning("channel %s does not take messages now", self._names.get(channel, channel))
        try:
            if sent is None:
                self._outbox.give_back(self._own_name(), ref, channel)
            else:
                self._outbox.settle(self._own_name(), ref, channel, sent=sent)
        except ServiceError as error:
            log.warning("how a notification ended could not be recorded: %s", error.code)
