"""The process that sends notifications: JSON lines in, one line out for each that ended. Only here is apprise loaded.

It outlives a service that is killed just long enough to end what it has begun, and writes a receipt for what was sent:
the next sender reads it and does not send that again. What it has not begun it drops, because the outbox still has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FINISH_S = 8.0
"""Less than what is left of a dead sender's lease: its heir sends again what has no receipt by then."""
MOST_PAUSES_S = 20.0
"""Of apprise, between the parts of one message. Where it makes more of them (an SMS in thirty parts) the message stays
whole: the sender would be held to be stuck (STUCK_S) before the last part, and all be sent again."""
BEGIN_WITHIN_S = 10.0
"""What has waited in its lane for so long is given back unsent: the sender counts the time from its hand-over (STUCK_S),
and a page that has come meanwhile goes first.
"""
_SAYS_OVERFLOW = re.compile(r"[?&;]overflow=", re.IGNORECASE)
_MARK_UP = re.compile("[<>&]")
_RECIPIENTS = ("targets", "topics", "channels", "rooms")
"""Where apprise's plugins keep those that one address names."""
MOST_REMEMBERED = 1_000
_reached: dict[tuple[str, str], set[int]] = {}
"""By delivery, whom of its address it has reached while others refused it: it is tried again for those alone."""
Lane = queue.Queue[tuple[dict[str, Any], float] | None]
"""One channel's jobs, and when each came."""
_out = threading.Lock()
_ending = threading.Event()


def main(receipts: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's: it ends this by closing its input
    lanes: dict[str, Lane] = {}
    threads = []
    for line in sys.stdin:
        job = json.loads(line)
        if job["channel"] not in lanes:
            lane = lanes[job["channel"]] = queue.Queue()
            thread = threading.Thread(target=_run, args=(lane, receipts), daemon=True)
            threads.append(thread)
            thread.start()
        lanes[job["channel"]].put((job, time.monotonic()))
    _ending.set()
    for lane in lanes.values():
        lane.put(None)
    for thread in threads:
        thread.join(FINISH_S / max(1, len(threads)))
    os._exit(0)  # a channel that hangs must not keep this process


def _run(lane: Lane, receipts: Path, now: Callable[[], float] = time.monotonic) -> None:
    """One channel's messages, one after the other: a channel that hangs holds up nobody else's."""
    while (waiting := lane.get()) is not None and not _ending.is_set():
        job, came_at = waiting
        if now() - came_at > BEGIN_WITHIN_S:
            _say(job, None)
            continue
        sent = _send(job)
        if sent:
            # On a full disk there is no receipt, and the answer alone keeps the message from being sent again.
            with contextlib.suppress(OSError), _out, receipts.open("a", encoding="utf-8") as file:
                file.write(f"{job['ref']}\n")
                file.flush()
                os.fsync(file.fileno())
        _say(job, sent)


def _say(job: dict[str, Any], sent: bool | None) -> None:
    """To the service: how it ended, None where it was not begun."""
    with _out, contextlib.suppress(OSError, ValueError):
        print(json.dumps({"ref": job["ref"], "channel": job["channel"], "sent": sent}), flush=True)  # noqa: T201


def _send(job: dict[str, Any]) -> bool:
    import apprise

    kind = apprise.NotifyType.FAILURE if job["page"] else apprise.NotifyType.INFO
    one = apprise.Apprise()
    try:
        if not one.add(job["url"]):
            return False
        for service in one:
            # A channel refuses what is too long for it, and would refuse it for three days.
            parts = -(-len(job["title"] + job["body"]) // service.body_maxlen)
            pauses_s = (parts - 1) * service.request_rate_per_sec
            if pauses_s <= MOST_PAUSES_S and not _SAYS_OVERFLOW.search(job["url"]):
                service.overflow_mode = apprise.OverflowMode.SPLIT
        # Words of the broker's may hold what is mark-up to a channel, which refuses what it cannot read. Where there is
        # none it is not said to be text: apprise would cut what is too long within its lines.
        written = apprise.NotifyFormat.TEXT if _MARK_UP.search(job["title"] + job["body"]) else None
        said = {"body": job["body"], "title": job["title"], "notify_type": kind, "body_format": written}
        return _to_each((job["channel"], job["ref"]), next(iter(one)), lambda: bool(one.notify(**said)))
    except Exception:  # noqa: BLE001 - whatever a plugin of a hundred raises, it was not sent, and its words may hold the address
        return False


def _to_each(delivery: tuple[str, str], service: Any, notify: Callable[[], bool]) -> bool:  # noqa: ANN401 - a plugin of apprise
    """Whether all that the address names have it. apprise says one word for all of them: a chat that is gone would have the
    others told again and again, for days.
    """
    for name in _RECIPIENTS:
        each = getattr(service, name, None)
        if isinstance(each, list) and len(each) == len(service) > 1:
            break
    else:
        return notify()
    reached = _reached.setdefault(delivery, set())
    for number, recipient in enumerate(each):
        if number not in reached:
            setattr(service, name, [recipient])
            if notify():
                reached.add(number)
    if len(reached) == len(each):
        del _reached[delivery]
        return True
    if len(_reached) > MOST_REMEMBERED:
        del _reached[next(iter(_reached))]
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
