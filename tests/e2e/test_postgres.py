"""The same service on Postgres: migrated by its command, two workers, sixteen copies of one alert."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, Answer, Service

pytestmark = pytest.mark.slow


def test_migrated_by_command_it_makes_one_order_of_sixteen_copies(tmp_path: Path, postgres_url: str) -> None:
    env = {"DATABASE_URL": postgres_url, "INSTANCE_DIR": str(tmp_path / "instance"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "flask", "--app", "app.wsgi", "migrate"]
    subprocess.run(command, check=True, cwd=ROOT, env={"PATH": os.environ["PATH"], **env})
    with Service(tmp_path, {"DATABASE_URL": postgres_url}) as service:

        def send(_: int) -> Answer:
            return service.alert(strikeprice=24500, lots=1, idempotency_key="same")

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(send, range(16)))
        statuses = {answer.status for answer in answers}
        assert statuses <= {200, 202, 409}, [a.body for a in answers if a.status not in (200, 202, 409)]
        assert 200 in statuses
        assert len(service.get("/api/v1/orders").body["orders"]) == 1
        assert service.alert(strikeprice=24500, lots=1, idempotency_key="same").status == 200
