"""`make audit` is never green without data; the locks and the bill of materials are complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.audit import CANARY, FOUND, LOCKS, NOT_RUN, OK, Report, audit, normal, unhashed

ROOT = Path(__file__).parents[2]
HASH = "sha256:" + "0" * 64
LOCK = f"flask==3.1.0 \\\n    --hash={HASH}\nPy_YAML==6.0 ; sys_platform == 'x' \\\n    --hash={HASH}\n"
NAMES = {"flask", "py-yaml"}


class Source:
    """A vulnerability service with what it knows, by name; `None` for the canary: it has no data."""

    def __init__(self, known: Report | None, *, canary: bool = True, only: str = "pypi") -> None:
        self.known, self.canary, self.only = known, canary, only

    def __call__(self, service: str, requirements: Path) -> Report | None:
        if service != self.only:
            return None
        if CANARY in requirements.read_text():
            return {"jinja2": ["PYSEC-1"] if self.canary else []}
        return self.known


def ask(tmp_path: Path, source: Source, lock: str = LOCK) -> tuple[int, str]:
    path, said = tmp_path / "requirements.txt", list[str]()
    path.write_text(lock)
    return audit([path], source, said.append), "\n".join(said)


@pytest.mark.parametrize("service", ["pypi", "osv"])
def test_green_when_all_were_looked_up_and_none_is_vulnerable(tmp_path: Path, service: str) -> None:
    assert ask(tmp_path, Source({name: [] for name in NAMES}, only=service))[0] == OK


def test_a_vulnerable_package_is_named(tmp_path: Path) -> None:
    code, said = ask(tmp_path, Source({"flask": [], "py-yaml": ["CVE-1"]}))
    assert code == FOUND
    assert "VULNERABLE py-yaml: CVE-1" in said


@pytest.mark.parametrize(
    "source",
    [
        Source(None, only="nobody"),
        Source({name: [] for name in NAMES}, canary=False),
        Source(None),
        Source({"flask": []}),
        Source({}),
    ],
    ids=["no answer", "a source without data", "no answer later", "one package missing", "all missing"],
)
def test_not_run_is_said_and_is_no_success(tmp_path: Path, source: Source) -> None:
    code, said = ask(tmp_path, source)
    assert code == NOT_RUN
    assert "NOT RUN" in said


def test_a_pin_without_a_hash_is_found(tmp_path: Path) -> None:
    code, said = ask(tmp_path, Source({name: [] for name in NAMES}), LOCK + "requests==2.0\n")
    assert (code, "requests" in said) == (FOUND, True)


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_of_the_locks_has_its_hashes(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert len(re.findall(r"^[A-Za-z0-9._-]+==", lock, re.MULTILINE)) > 30
    assert unhashed(lock) == []


@pytest.mark.slow
def test_the_bill_of_materials_names_every_locked_package(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", "--output-format", "JSON"]
    subprocess.run(
        [*command, "--output-reproducible", "-o", str(out), "requirements.txt"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {(normal(c["name"]), c["version"]) for c in bill["components"]}
    pins = re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    assert {(normal(n), v) for n, v in pins} <= listed
