"""`python -m app.refresh`: bring the contract index up to date, from the broker or from the paper exchange."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from app.domain.contract import ist_date
from app.settings import Settings, load
from app.wiring import SystemClock, index_dir


def refresh(settings: Settings) -> str:
    """One line about what was built. Raises when no usable master could be had: the last index stays."""
    from app.brokers.fyers import symbols

    directory = index_dir(settings)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if settings.has_real_market:
            sources = _download(settings, Path(scratch))
        else:
            sources = _paper_sources(Path(scratch))
        report = symbols.refresh(directory, sources)
    return f"contract index: {report}"


def _paper_sources(scratch: Path) -> dict[str, Path]:
    from app.brokers.paper.master import paper_master

    sources = {}
    for name, content in paper_master(ist_date(SystemClock().now())).items():
        (scratch / name).write_bytes(content)
        sources[name] = scratch / name
    return sources


def _download(settings: Settings, scratch: Path) -> dict[str, Path]:
    import requests

    from app.brokers.fyers.symbols import MasterFetcher

    def get(url: str) -> bytes:
        answer = requests.get(url, timeout=(5, 30))
        answer.raise_for_status()
        return answer.content

    return MasterFetcher().fetch(settings.symbol_master_url, settings.symbol_master_files, scratch, get)


if __name__ == "__main__":
    try:
        print(refresh(load()))  # noqa: T201
    except Exception as exc:  # noqa: BLE001 - the caller goes on with the last index; the reason is shown
        sys.exit(f"contract index not refreshed: {type(exc).__name__}: {exc}")
