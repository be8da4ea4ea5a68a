"""The token as a file: readable by this user alone, replaced whole, with a counter that tells writers apart."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import TokenStoreUnavailable
from app.store.tokens import Held

LOCK_WAIT_S = 2.0
"""A writer holds the lock for milliseconds; a stopped process must not hold up a login for ever."""
HEADER = b"generation "
MAX_BYTES = 65_536


class FileObject:
    """Implements store.tokens.TokenObject. The first line counts the writes; a file without one counts as 1."""

    poll_s = 1.0
    """A look is one stat()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file:{path.name}"

    def stamp(self) -> object:
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(error) from error
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def read(self) -> Held | None:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(error) from error
        first, newline, rest = raw.partition(b"\n")
        number = first.removeprefix(HEADER)
        if newline and first.startswith(HEADER) and number.isdigit() and len(number) < 16:  # noqa: PLR2004
            return Held(int(number), rest)
        return Held(1, raw)

    def write(self, data: bytes, expected: int) -> bool:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                held = self.read()
                if (held.generation if held else 0) != expected:
                    return False
                self._replace(HEADER + str(expected + 1).encode() + b"\n" + data)
        except OSError as error:
            raise _failed(error) from error
        return True

    def _replace(self, content: bytes) -> None:
        """A reader sees the old file or the new one, whole, also after a power cut."""
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer of all processes. The lock file stays: removing it would let two hold different ones."""
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give_up = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise TimeoutError("another process holds the token file's lock") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(lock)


def _failed(error: OSError) -> TokenStoreUnavailable:
    return TokenStoreUnavailable(f"the token file cannot be used: {error.strerror or error}")
