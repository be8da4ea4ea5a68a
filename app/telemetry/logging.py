"""Log lines: one JSON object per line, on stdout and perhaps in a file, whoever logs: this service or a library of its.

structlog hands its events to the standard library's handlers, so that every line takes the same way, and none gets past
the redaction. A destination that cannot be set up is said in a warning, and the service goes on without it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog

from app.service import observe
from app.settings.telemetry import TelemetrySettings
from app.telemetry.secrets import MAX_ITEMS, MAX_TRACE, SECRETS

FILE_BYTES = 10_000_000
FILES = 5
SEVERITY = {"DEBUG": "DEBUG", "INFO": "INFO", "WARNING": "WARNING", "ERROR": "ERROR", "CRITICAL": "CRITICAL"}
QUIET = ("apscheduler", "urllib3.connectionpool", "fyers_apiv3", "opentelemetry")
"""Libraries whose every step is not worth a line: from WARNING on."""
OWN_HANDLERS = ("gunicorn.error", "gunicorn.access", "werkzeug", "flask.app")
"""Loggers that bring handlers of their own: theirs would print past the redaction."""


@dataclass(slots=True)
class _Rendered:
    """Kept with its record for the next destination."""

    line: dict[str, Any]
    text: str


class JsonLine(logging.Formatter):
    """A record as one line of JSON. `project`: Google Cloud's fields as well, with traces of that project."""

    def __init__(self, *, cloud: bool = False, project: str = "") -> None:
        super().__init__()
        self._cloud, self._project = cloud, project

    def format(self, record: logging.LogRecord) -> str:
        trail = observe.current()
        done = getattr(record, "rendered", None)
        if not isinstance(done, _Rendered):
            done = record.rendered = _rendered(record, trail)
        if not self._cloud:
            return done.text
        line = dict(done.line)
        self._add_cloud(line, record, trail)
        return _dumped(line)

    def _add_cloud(
        self, line: dict[str, Any], record: logging.LogRecord, trail: observe.Trail | None
    ) -> None:
        line["severity"] = SEVERITY.get(record.levelname, "DEFAULT")
        line["message"] = line["event"] + ("\n" + line["exception"] if "exception" in line else "")
        if trail is not None and trail.trace_id and self._project:
            line["logging.googleapis.com/trace"] = f"projects/{self._project}/traces/{trail.trace_id}"
            if trail.span_id:
                line["logging.googleapis.com/spanId"] = trail.span_id


_dumped = json.JSONEncoder(ensure_ascii=False, default=str, skipkeys=True).encode


def _rendered(record: logging.LogRecord, trail: observe.Trail | None) -> _Rendered:
    """The record without anything secret in it."""
    fields = getattr(record, "fields", None)
    line: dict[str, Any] = {"event": _message(record)}
    if trail is not None:
        line["request_id" if trail.kind == "request" else "job"] = trail.id
        line |= {"order_id": trail.order_id} if trail.order_id else {}
        line |= {"trace_id": trail.trace_id} if trail.trace_id else {}
    if isinstance(fields, dict):
        line |= {k: v for k, v in list(fields.items())[:MAX_ITEMS] if v is not None}
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    end = {"level": record.levelname.lower(), "logger": record.name, "timestamp": moment}
    whole = line | end
    text = _dumped(whole)
    has_trace = record.exc_info is not None and record.exc_info[0] is not None
    if not has_trace and SECRETS.is_clean(text):
        return _Rendered(whole, text)  # as nearly every line is: it is written as it was looked at
    if not SECRETS.is_clean(text):
        line = {k: SECRETS.of_key(k, v) for k, v in line.items()}
    if record.exc_info is not None and has_trace:
        trace = "".join(traceback.format_exception(*record.exc_info))
        line["exception"] = SECRETS.shortened(trace, MAX_TRACE)
    line |= end
    return _Rendered(line, _dumped(line))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's wrong arguments are no reason to lose the line
        return str(record.msg)


class _Ours:
    """Marks the handlers that `configure` made; others (a test's) stay."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - the standard library's name
        """The standard one prints the record's arguments, which nobody has cleaned."""
        error = sys.exc_info()[0]
        with suppress(Exception):  # there may be no stderr at all
            sys.stderr.write(f'{{"event": "a log line was lost", "error": "{error and error.__name__}"}}\n')


class Standard(_Ours, logging.Handler):
    """stdout as it is now: it may be another one than at the start."""

    to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.stderr if self.to_stderr else sys.stdout
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - a line is no reason to fail
            self.handleError(record)


class SharedFile(_Ours, RotatingFileHandler):
    """A rotating file that several processes write: one of them rotates it, and the others follow. Not buffered: a line is
    one write, and looked at once.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path.absolute()
        self._can_rotate = True
        self._lock_file = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            super().__init__(self._path, maxBytes=FILE_BYTES, backupCount=FILES)
        except BaseException:
            os.close(self._lock_file)
            raise

    def _open(self) -> Any:  # noqa: ANN401 - the library's own is a text's
        return self._path.open("ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Half of a pair of surrogates, which UTF-8 cannot say, becomes what JSON says for it.
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            self._lock(fcntl.LOCK_EX)
            try:
                self._write(line)
            finally:
                self._lock(fcntl.LOCK_UN)
        except Exception:  # noqa: BLE001 - a line is no reason to fail
            self.handleError(record)

    def close(self) -> None:
        super().close()
        held, self._lock_file = self._lock_file, -1
        if held >= 0:
            os.close(held)

    def _lock(self, how: int) -> None:
        """On a file system without locks lines may be lost at a rotation, and the service is not."""
        with suppress(OSError, ValueError):
            fcntl.flock(self._lock_file, how)

    def _write(self, line: bytes) -> None:
        size = self._size()
        if self._can_rotate and size + len(line) >= self.maxBytes:
            self._rotate()
        if self.stream is None:  # a rotation could not open it
            self.stream = self._open()
        file = self.stream.fileno()
        written = os.write(file, line)
        if written != len(
            line
        ):  # the disk is full: the next line, once there is room, must not go on in this one
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(f"expected {len(line)} bytes to be written, were {written}")

    def _rotate(self) -> None:
        try:
            self.doRollover()
        except OSError:
            # A file that cannot be renamed (it is a mount of its own) grows on: each further try would push one more
            # of the older ones out.
            self._can_rotate = not self._path.exists()

    def _size(self) -> int:
        """Of the file as it is now: where another process has renamed it, that is the new one."""
        if self.stream is None:
            return 0  # there is nothing to rotate
        try:
            there, here = self._path.stat(), os.fstat(self.stream.fileno())
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return there.st_size
            size = there.st_size
        except (OSError, ValueError):
            size = 0
        self.stream.close()
        self.stream = None
        self.stream = self._open()
        return size


def _to_record(
    _logger: object, _name: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """Structlog's last step: the event and its fields as a record of the standard library."""
    word, trace = str(event.pop("event", "")), event.pop("exc_info", None)
    return (word,), {"extra": {"fields": event}, "exc_info": trace}


def configure(settings: TelemetrySettings) -> None:
    """Set up all destinations anew. The settings' secrets are hidden from here on."""
    SECRETS.add_settings(settings)
    observe.use_keeper(SECRETS.add)
    observe.use_mask(SECRETS.masked)
    standard = Standard()
    standard.setLevel(settings.stdout_level)
    standard.setFormatter(JsonLine(cloud=settings.use_cloud_logging, project=settings.google_cloud_project))
    handlers: list[logging.Handler] = [standard]
    trouble: Exception | None = None
    if settings.log_file is not None:
        try:
            file = SharedFile(settings.log_file)
            file.setLevel(settings.file_level)
            file.setFormatter(JsonLine())
            handlers.append(file)
        except (OSError, ValueError) as error:
            trouble = error
    # No line of ours says where it was written, or by which thread: looked up for each, it cost a tenth of the line.
    logging._srcfile = None  # noqa: SLF001 - as "Optimization" in the library's manual has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Ours)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    level = min(h.level for h in handlers)
    root.setLevel(level)
    for name in OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[_to_record],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    if trouble is not None:
        logging.getLogger(__name__).warning("no log file: LOG_FILE cannot be written: %s", trouble)


def to_stderr() -> None:
    """For a command, whose stdout is its answer."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Standard):
            handler.to_stderr = True


class LogNotifier:
    """Tells a person through the log until channels are configured: a page is an error line."""

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        log = structlog.get_logger("notify")
        (log.error if page else log.warning)(code, detail=message, page=page)
