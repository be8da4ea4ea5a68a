"""`make audit`: known vulnerabilities of what is locked, by pip-audit.

Three answers, by the exit code: 0 none is known, 1 some are (or a hash is missing), 2 NOT RUN. An audit without data must never look
green: so a release that is known to be vulnerable is asked about first, and every locked package has to come back.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.txt", "requirements-dev.txt")
SERVICES = ("pypi", "osv")
CANARY = "jinja2==2.4.1"
"""Has had published vulnerabilities for years: a source that knows of none has no data."""
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
WITHIN_S = 300
OK, FOUND, NOT_RUN = 0, 1, 2

Report = dict[str, list[str]]
"""Vulnerabilities by package name, for the packages that were looked up."""
Ask = Callable[[str, Path], Report | None]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pip_audit(service: str, requirements: Path) -> Report | None:
    """What one service knows; None when it could not be asked."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    command += [
        "--format",
        "json",
        "--timeout",
        "10",
        "--vulnerability-service",
        service,
        "-r",
        str(requirements),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return {
        normal(row["name"]): [v["id"] for v in row["vulns"]]
        for row in found["dependencies"]
        if "skip_reason" not in row
    }


def unhashed(lock: str) -> list[str]:
    """Pins that could be installed without their hash being compared."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return [pin[1] for entry in entries if (pin := PIN.match(entry)) and "--hash=sha256:" not in entry]


def audit(locks: list[Path], ask: Ask, say: Callable[[str], None]) -> int:
    bare = [f"{lock.name}: {name}" for lock in locks for name in unhashed(lock.read_text())]
    if bare:
        say("without a hash: " + ", ".join(bare))
        return FOUND
    service = next((s for s in SERVICES if _has_data(s, ask)), None)
    if service is None:
        say(
            f"NOT RUN: neither of {', '.join(SERVICES)} knows that {CANARY} is vulnerable, so none has data here"
        )
        return NOT_RUN
    known: Report = {}
    for lock in locks:
        report = ask(service, lock)
        wanted = {normal(name) for name, _ in PIN.findall(lock.read_text())}
        if report is None or not wanted <= set(report):
            missing = sorted(wanted - set(report or {}))
            say(
                f"NOT RUN: {service} gave no answer about {len(missing)} of {lock.name}: {', '.join(missing[:5])}"
            )
            return NOT_RUN
        known |= {name: ids for name, ids in report.items() if ids}
        say(f"{lock.name}: {len(wanted)} packages looked up at {service}")
    for name, ids in sorted(known.items()):
        say(f"VULNERABLE {name}: {', '.join(ids)}")
    return FOUND if known else OK


def _has_data(service: str, ask: Ask) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "canary.txt"
        canary.write_text(CANARY + "\n")
        report = ask(service, canary)
    return bool(report and report.get(normal(CANARY.split("==", maxsplit=1)[0])))


if __name__ == "__main__":
    sys.exit(audit([ROOT / name for name in LOCKS], pip_audit, print))
