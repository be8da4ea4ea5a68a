"""Labels that stay few, whatever is sent."""

from __future__ import annotations

import fcntl
import re
import threading
from functools import lru_cache
from pathlib import Path

OTHER = "other"
NONE = "none"
MAX_WORD = 40
FILE = "strategies.txt"

_PLAIN = re.compile(r"[^A-Za-z0-9_.:-]+")


@lru_cache(1024)
def word_of(text: str) -> str:
    """Fit for a label: short, and of plain characters."""
    return _PLAIN.sub("_", text)[:MAX_WORD] or NONE


class Few:
    """The first `most` words keep their names, all others are `other`. With a directory the processes there, and those
    that come after them, agree on which words these are.
    """

    def __init__(self, most: int, shared: Path | None = None) -> None:
        self._most = most
        self._path = shared / FILE if shared is not None else None
        self._known: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> str:
        word = word_of(text)
        if word in self._known or word == NONE:
            return word
        if len(self._known) >= self._most:
            return OTHER
        with self._lock:
            self._known = self._learn(word)
        return word if word in self._known else OTHER

    def _learn(self, word: str) -> frozenset[str]:
        if self._path is None:
            return self._known | {word} if len(self._known) < self._most else self._known
        try:
            with self._path.open("a+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                known = frozenset(file.read().split())
                if word not in known and len(known) < self._most:
                    file.write(word + "\n")
                    known |= {word}
                return known
        except OSError:  # the label is worth no more than this
            return self._known
