"""The real Prometheus over a running service, with this repository's alarm rules, every second."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from tests.e2e.service import Service, free_port
from tests.unit.ops_rules import PROMETHEUS, promtool

JOB = "tradingview-fyers"
START_WITHIN_S = 20
SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})? (\S+)")


def binary() -> str:
    promtool()  # skips, or fails in CI
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is missing: apt-get install prometheus")
    return found


@dataclass
class Prometheus:
    directory: Path
    service: Service
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        token = self.directory / "prometheus.token"
        token.write_text(self.service.admin or "")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(PROMETHEUS / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": JOB,
                    "authorization": {"credentials_file": str(token)},
                    "static_configs": [{"targets": [f"127.0.0.1:{self.service.port}"]}],
                }
            ],
        }
        path = self.directory / "prometheus.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        command = [
            binary(),
            f"--config.file={path}",
            f"--storage.tsdb.path={self.directory / 'series'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (self.directory / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        give_up = time.monotonic() + START_WITHIN_S
        while time.monotonic() < give_up:
            try:
                if self._get("/-/ready")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError((self.directory / "prometheus.log").read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def firing(self) -> dict[str, str]:
        """Name and summary of what fires now."""
        alerts: list[dict[str, Any]] = json.loads(self._get("/api/v1/alerts")[1])["data"]["alerts"]
        return {
            a["labels"]["alertname"]: a["annotations"]["summary"] for a in alerts if a["state"] == "firing"
        }

    def wait_for(self, *names: str, within_s: float) -> dict[str, str]:
        """Their summaries, once all of them have fired (an alarm may be over before the last one begins)."""
        seen: dict[str, str] = {}
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            seen = self.firing() | seen
            if set(names) <= set(seen):
                for name in names:
                    print(f"FIRING {name}: {seen[name]}")  # noqa: T201 - what the run shows
                return seen
            time.sleep(0.2)
        raise AssertionError(f"expected {names}, fired {seen}")

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def scraped(service: Service) -> dict[str, float]:
    """All series of one scrape, by name and labels."""
    answer = service.request("GET", "/metrics", headers={"Authorization": f"Bearer {service.admin}"})
    assert answer.status == 200
    return {
        f"{found[1]}{found[2] or ''}": float(found[3])
        for line in answer.body.decode().splitlines()
        if not line.startswith("#") and (found := SAMPLE.fullmatch(line)) is not None
    }
