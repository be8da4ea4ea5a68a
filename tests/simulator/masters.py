"""The symbol master: files served as they are, and the instruments that the exchange knows from them.

(D) 21 columns without header; the JSON twin alone has qtyFreeze. (A) Freeze quantities without a twin come
from a table of the exchange's circulars (December 2025; SENSEX at medium confidence).
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tests.simulator.clock import Clock
from tests.simulator.money import dec
from tests.simulator.wire import Reply, Request

FREEZE_BY_UNDERLYING: dict[str, int] = {
    "NIFTY": 1800,
    "BANKNIFTY": 600,
    "FINNIFTY": 1200,
    "MIDCPNIFTY": 2800,
    "NIFTYNXT50": 600,
    "SENSEX": 1000,
}
_DATED_NAME = re.compile(r"^((?:NSE|BSE|MCX)_[A-Z]+)\..*\.csv$")


@dataclass(frozen=True)
class Instrument:
    """What the exchange must know of a contract. `expiry` is None for cash; `freeze` None when unknown."""

    ticker: str
    fy_token: str
    details: str
    kind: int
    lot: int
    tick: Decimal
    expiry: datetime | None
    exchange: int
    segment: int
    underlying: str
    option_type: str
    freeze: int | None

    @property
    def is_derivative(self) -> bool:
        """Whether it is a future or an option."""
        return self.segment == 11

    @property
    def is_option(self) -> bool:
        """Whether it is a call or a put."""
        return self.option_type in ("CE", "PE")


class Masters(MutableMapping[str, bytes]):
    """Name to bytes, as `{"NSE_FO.csv": b"..."}`; instruments are looked up in the CSV files."""

    def __init__(
        self, files: Mapping[str, bytes], clock: Clock, freeze: Mapping[str, int] | None = None
    ) -> None:
        self._clock = clock
        self._freeze = dict(FREEZE_BY_UNDERLYING if freeze is None else freeze)
        self._files: dict[str, bytes] = {}
        self._modified: dict[str, datetime] = {}
        self._index: dict[str, list[str]] | None = None
        self._twin: dict[str, int] = {}
        self._found: dict[str, Instrument] = {}
        self.update(files)

    def __setitem__(self, name: str, content: bytes) -> None:
        self._files[name] = content
        self._modified[name] = self._clock().astimezone(UTC).replace(microsecond=0)
        self._index = None

    def __getitem__(self, name: str) -> bytes:
        return self._files[name]

    def __delitem__(self, name: str) -> None:
        del self._files[name]
        self._index = None

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def find(self, ticker: str) -> Instrument | None:
        """The instrument of a ticker, expired or not."""
        row = self._rows().get(ticker)
        if row is None:
            return None
        if ticker not in self._found:
            self._found[ticker] = self._instrument(ticker, row)
        return self._found[ticker]

    def _instrument(self, ticker: str, row: list[str]) -> Instrument:
        expiry = row[8].strip()
        return Instrument(
            ticker=ticker,
            fy_token=row[0],
            details=row[1],
            kind=int(row[2] or 0),
            lot=int(float(row[3] or 0)),
            tick=_decimal(row[4]),
            expiry=datetime.fromtimestamp(int(expiry), UTC) if expiry.isdigit() else None,
            exchange=int(row[10]),
            segment=int(row[11]),
            underlying=row[13],
            option_type=row[16],
            freeze=self._twin.get(ticker, self._freeze.get(row[13]) if row[11] == "11" else None),
        )

    def tickers(self) -> list[str]:
        """Every ticker of the CSV files."""
        return list(self._rows())

    def _rows(self) -> dict[str, list[str]]:
        if self._index is None:
            index: dict[str, list[str]] = {}
            twin: dict[str, int] = {}
            for name, content in self._files.items():
                if name.endswith(".csv"):
                    for line in content.decode("utf-8", "replace").splitlines():
                        row = line.split(",")
                        if len(row) >= 17:
                            index[row[9]] = row
                elif name.endswith(".json"):
                    twin.update(_freeze_quantities(content))
            self._twin = twin
            self._found = {}
            self._index = index
        return self._index

    def serve(self, request: Request, name: str) -> Reply:
        """The file as a static server would give it; conditional GET by ETag or date."""
        content = self._files.get(name)
        if content is None:
            return Reply(404, b"<html>404 Not Found</html>", content_type="text/html", answer="404")
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        modified = self._modified[name]
        headers = (("ETag", etag), ("Last-Modified", email.utils.format_datetime(modified, usegmt=True)))
        if _not_modified(request, etag, modified):
            return Reply(304, b"", headers=headers, answer="not_modified")
        kind = "application/json" if name.endswith(".json") else "text/csv"
        return Reply(200, content, headers=headers, content_type=kind, answer="file")


def _decimal(text: str) -> Decimal:
    try:
        return dec(text)
    except InvalidOperation:
        return dec(0)


def _not_modified(request: Request, etag: str, modified: datetime) -> bool:
    known = request.headers.get("if-none-match")
    if known is not None:
        return known.strip() in (etag, "*") or etag in known
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return modified <= email.utils.parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return False


def _freeze_quantities(content: bytes) -> dict[str, int]:
    try:
        rows = json.loads(content)
        return {ticker: int(row["qtyFreeze"]) for ticker, row in rows.items() if row.get("qtyFreeze")}
    except (ValueError, AttributeError, TypeError):
        return {}


def masters_of_directory(folder: Path) -> dict[str, bytes]:
    """The files of a folder; `NSE_CM.2026-07-01.csv` stands for NSE_CM.csv where that is missing (the last date wins)."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        dated = _DATED_NAME.match(path.name)
        if dated:
            files[f"{dated[1]}.csv"] = path.read_bytes()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".csv", ".json") and not _DATED_NAME.match(path.name):
            files[path.name] = path.read_bytes()
    return files
