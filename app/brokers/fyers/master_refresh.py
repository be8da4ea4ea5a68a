"""Build the contract index of source files in a child process, and swap it in by rename.

A failed build leaves the last index in its place. What a source has to be is in master_fetch.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.brokers.fyers.index_build import SCHEMA_VERSION
from app.brokers.fyers.index_file import ANY_VERSION, PATTERN, UNREADABLE, open_index
from app.brokers.fyers.master_rows import Kind, kind_of
from app.errors import NoMaster

log = logging.getLogger(__name__)

BUILD_LIMIT_S = 120
"""A hundred times what 98,000 rows take: a child that needs longer hangs."""
ROOT = Path(__file__).resolve().parents[3]
"""Where the child finds the package `app`."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    path: Path
    rows: int
    skipped: int
    reused: bool
    seconds: float

    def __str__(self) -> str:
        how = "reused" if self.reused else f"built in {self.seconds:.2f} s"
        return f"{self.path.name}, {self.rows} contracts, {self.skipped} rows skipped, {how}"


@dataclass(frozen=True, slots=True)
class _Said:
    """The child's report: contracts written, bad rows by file and rule, newest inside date by file."""

    rows: int
    skipped: dict[str, int]
    dates: dict[str, str]


def refresh(directory: Path, sources: Mapping[str, Path], expected: Sequence[str] = ()) -> BuildReport:
    """Build the index of `sources` (file name -> path) in a child process, and swap it in. `expected`: the options
    files that there should be; the index says of each that gave it nothing that it lacks it.

    Under a file lock: others wait, then find the same sources already built. Raises NoMaster when they give no
    usable index; the last one then stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with _file_lock(directory / "build.lock"):
        digest = _digest(sources, expected)
        for built in directory.glob(PATTERN):
            if built.stem.endswith(digest):
                with suppress(*UNREADABLE):
                    index = open_index(built)
                    index.db.close()
                    _delete_others(directory, built)
                    return BuildReport(built, index.age.rows, index.age.skipped, True, 0.0)
        for left in directory.glob("building-*"):  # of a build that was killed; we hold the lock
            left.unlink(missing_ok=True)
        scratch = directory / f"building-{digest}"
        try:
            said = _run_child(scratch, sources, expected)
            options = [d for name, d in said.dates.items() if kind_of(name) is Kind.OPTIONS]
            path = directory / f"contracts-v{SCHEMA_VERSION}-{max(options)}-{digest}.sqlite"
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        _flush_directory(directory)
        _delete_others(directory, path)
    skipped = sum(said.skipped.values())
    if skipped:
        log.warning("symbol master: %d rows skipped: %s", skipped, said.skipped)
    return BuildReport(path, said.rows, skipped, False, time.perf_counter() - started)


def build_from_bytes(directory: Path, files: Mapping[str, bytes]) -> BuildReport:
    """`refresh` for files that are at hand as bytes (file name -> content)."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for name, content in files.items():
            sources[name] = Path(scratch) / name
            sources[name].write_bytes(content)
        return refresh(directory, sources)


def _run_child(out: Path, sources: Mapping[str, Path], expected: Sequence[str]) -> _Said:
    """A new interpreter, never a fork of this one: a fork would take its threads' locks along."""
    named = [part for name, path in sources.items() for part in ("--source", f"{name}={path.resolve()}")]
    command = [sys.executable, "-m", "app.brokers.fyers.index_build", "--out", str(out.resolve()), *named]
    command += [part for name in expected for part in ("--expected", name)]
    try:
        child = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NoMaster(f"the contract index could not be built: {exc}") from exc
    if child.returncode != 0:
        reason = child.stderr.strip().rsplit("\n", 1)[-1] or "it said nothing"
        raise NoMaster(f"the contract index could not be built (status {child.returncode}): {reason}")
    said = json.loads(child.stdout.splitlines()[-1])
    return _Said(said["rows"], said["skipped"], said["dates"])


def _digest(sources: Mapping[str, Path], expected: Sequence[str]) -> str:
    """One name for the sources' content and what was expected, whatever their paths and order."""
    whole = hashlib.sha256("\0".join(sorted(expected)).encode())
    for name in sorted(sources):
        with sources[name].open("rb") as content:
            whole.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\0".encode())
    return whole.hexdigest()[:16]


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Held until the block ends or this process dies."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_others(directory: Path, kept: Path) -> None:
    """Whoever has one of them open keeps its content until it looks again."""
    for path in directory.glob(ANY_VERSION):
        if path != kept:
            path.unlink(missing_ok=True)
