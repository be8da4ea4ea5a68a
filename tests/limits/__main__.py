"""`make limits`: what the guard rails promise, line by line and at full size; a table at the end says what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from bench.rows import MISSED

ROOT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-o", "junit_family=xunit1")
TAIL = 40
WORDS = {0: "passed", MISSED: "missed"}
"""By how a line's run ended; else it failed. Missed: all worked, and a number was not what is promised."""
FOUND = 6
"""Lines of a module's run: the rows of the benchmark."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    size: str
    tests: tuple[str, ...] = ()
    module: str = ""
    """Run instead of tests; what it prints in the end is what it has found."""


LINES = (
    Line("hostile bodies", "20,000", ("tests/e2e/test_hostile.py",)),
    Line("caps from three processes", "10,000 + 7 x 1,000", ("tests/limits/test_caps.py",)),
    Line(
        "wrong tokens",
        "100,000",
        ("tests/unit/test_authentication.py::test_of_100000_wrong_tokens_none_is_accepted",),
    ),
    Line(
        "spoofed X-Forwarded-For",
        "200 x 4 hops",
        (
            "tests/unit/test_address.py",
            "tests/limits/test_attack.py::test_200_spoofed_shapes_at_the_door",
        ),
    ),
    Line(
        "attack with wrong tokens",
        "1,000 a second",
        (
            "tests/limits/test_attack.py::test_the_traders_alerts_pass_beside_a_thousand_wrong_tokens_a_second",
        ),
    ),
    Line("risk checks alive", "95 % of all mutants", module="tests.mutants"),
    Line("a looping strategy", "100,000", ("tests/integration/test_loop.py",)),
    Line("audit tamperings", "500 x 2 databases", ("tests/integration/test_audit_tampering.py",)),
    Line("canary secrets", "every door", ("tests/e2e/test_leaks.py",)),
    Line(
        "kill switch",
        "3 processes, 2 x 10 runs",
        (
            "tests/limits/test_kill.py::test_a_second_after_it_no_process_sends_an_entry",
            "tests/e2e/test_kill_switch.py",
        ),
    ),
    Line(
        "flatten under load",
        "100 runs",
        (
            "tests/limits/test_kill.py::test_flatten_under_load_ends_flat_and_is_never_short",
            "tests/service/test_flatten.py",
        ),
    ),
    Line("slow clients", "200 of each kind", ("tests/e2e/test_slow_clients.py",)),
    Line("benchmark with all checks", "the targets of the benchmark", module="bench.alerts"),
)


@dataclass(frozen=True, slots=True)
class Result:
    line: Line
    ended: int
    """With this exit code."""
    seconds: float
    found: tuple[str, ...]

    @property
    def word(self) -> str:
        return WORDS.get(self.ended, "FAILED")


def run(line: Line, scratch: Path) -> Result:
    report = scratch / "report.xml"
    report.unlink(missing_ok=True)
    arguments = ["-m", line.module]
    if line.tests:
        arguments = [*PYTEST, f"--junitxml={report}", f"--basetemp={scratch / 'tests'}", *line.tests]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "LIMITS": "all"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode not in WORDS:
        say("\n".join(done.stdout.splitlines()[-TAIL:]))
    found = measured(report) if line.tests else done.stdout.splitlines()[-FOUND:]
    return Result(line, done.returncode, time.monotonic() - began, tuple(found))


def measured(report: Path) -> list[str]:
    """What the tests have noted, and how many there were; a skipped one is none that passed."""
    if not report.exists():
        return ["no report"]
    root = ET.parse(report).getroot()
    notes = [p.get("value", "") for p in root.iter("property") if p.get("name") == "measured"]
    suite = next(root.iter("testsuite")).attrib
    words = ("tests", "failures", "errors", "skipped")
    return [*notes, ", ".join(f"{suite[word]} {word}" for word in words)]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(wanted: list[str]) -> int:
    """All lines, or those whose name has one of the given words."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for line in LINES:
            if wanted and not any(word in line.name for word in wanted):
                continue
            say(f"{line.name} ({line.size}) ...")
            results.append(run(line, Path(scratch)))
            say(f"    {results[-1].word} in {results[-1].seconds:.0f} s")
            for found in results[-1].found:
                say(f"    {found}")
    say(f"\n{'line':28} {'size':26} {'result':8} seconds")
    for r in results:
        say(f"{r.line.name:28} {r.line.size:26} {r.word:8} {r.seconds:7.0f}")
    return int(any(r.ended for r in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
