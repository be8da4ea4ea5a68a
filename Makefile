# One obvious command for everything. `make help` lists them.
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
.DEFAULT_GOAL := help
.PHONY: help run test lint check bench chaos mutants hostile limits shutdown alarms audit sbom lock

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/run.stamp: requirements.txt
	test -x $(PY) || python3 -m venv .venv
	$(PIP) -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt
	test -x $(PY) || python3 -m venv .venv
	$(PIP) -r requirements-dev.txt
	touch $@

run: .venv/run.stamp ## install, migrate and serve on $PORT (8080), paper mode unless told otherwise
	$(PY) -m gunicorn -c gunicorn.conf.py app.wsgi:app

test: .venv/dev.stamp ## the whole test suite
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow"
	$(PY) -m pytest -n 2 --dist loadfile -m "slow and not alone"
	$(PY) -m pytest -n 2 --dist loadfile -m "alone and not chaos and not quiet"
	$(PY) -m pytest -m "chaos or quiet"

lint: .venv/dev.stamp ## format, lint, types, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

check: lint ## the same, and the fast tests
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow" tests/unit tests/service tests/contract tests/alerts

chaos: .venv/dev.stamp ## kill the service at every commit and every byte to the broker; the ledger judges
	$(PY) -W ignore -m tests.chaos

mutants: .venv/dev.stamp ## break the risk checks in one place at a time; the tests must notice
	$(PY) -m tests.mutants

hostile: .venv/dev.stamp ## 20,000 hostile requests to every route: no 5xx, no order, no dead worker, flat memory
	LIMITS=all $(PY) -m pytest tests/e2e/test_hostile.py

limits: .venv/dev.stamp ## the guard rails at full size, line by line, and a table of what came of each (an hour)
	$(PY) -m tests.limits

shutdown: .venv/dev.stamp ## 250 SIGTERMs under load: exit within 9 s, nothing lost, nothing doubled
	SHUTDOWNS=250 $(PY) -m pytest tests/e2e/test_shutdown.py

audit: .venv/dev.stamp ## known vulnerabilities of the locked packages; says NOT RUN when there is no data
	$(PY) -m ops.audit

alarms: .venv/dev.stamp ## check the alarm rules with promtool, and provoke each alarm that pages at a running service
	$(PY) -m pytest -rs tests/unit/test_ops_rules.py tests/e2e/test_alarms.py

sbom: .venv/dev.stamp ## what the service is made of, as CycloneDX: build/sbom.json
	mkdir -p build
	.venv/bin/cyclonedx-py requirements --output-format JSON --spec-version 1.6 --output-reproducible -o build/sbom.json requirements.txt

bench: .venv/dev.stamp ## measure the numbers the design promises, as ratios
	$(PY) -m bench

lock: ## renew the hash-pinned locks from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --override requirements-overrides.txt --custom-compile-command "make lock" -q pyproject.toml -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --override requirements-overrides.txt --custom-compile-command "make lock" -q --extra dev -c requirements.txt \
	  pyproject.toml -o requirements-dev.txt
