# Each target does its own set-up: a virtual environment in .venv, made once, and again when pyproject.toml changes.
# After that nothing is downloaded.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
# Two files at a time, in the order of tests/conftest.py.
BY_TWOS := -n 2 --dist loadfile --no-loadscope-reorder
ON_POSTGRES := tests/django tests/api tests/concurrency/test_races.py
.DEFAULT_GOAL := help
.PHONY: help demo serve test lint clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/for-demo ## Five clients train one model on handwritten digits, through a real server (about a minute)
	.venv/bin/fma demo

serve: .venv/for-demo ## Run a server on http://127.0.0.1:8000; its data is kept in ./fma-data
	.venv/bin/fma serve

test: .venv/for-development lint ## Lint, then run every test, and check the coverage
	rm -f .coverage .coverage.*
	.venv/bin/python -m pytest $(BY_TWOS) --durations=40 --cov --cov-report=
	@echo "The record and the API once more, on PostgreSQL:"
	.venv/bin/python -m pytest $(BY_TWOS) -p tests.servers.use_postgres $(ON_POSTGRES)
	@echo "Coverage, with its floors:"
	.venv/bin/python -m coverage report --fail-under=90 --include='fma_core/*'
	.venv/bin/python -m coverage report --fail-under=90 --include='fma_django/*'
	.venv/bin/python -m coverage report --fail-under=80 --include='fma_connect/*'

# mypy's Django plugin imports the settings, and these want a secret key.
lint: .venv/for-development ## Check commits, style, types, and who imports whom
	.venv/bin/python .ci/commits.py
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	FMA_SECRET_KEY=lint .venv/bin/mypy
	.venv/bin/lint-imports

clean: ## Remove .venv and what tests and tools leave behind (never ./fma-data)
	rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fma needs Python 3.11 or newer; see PYTHON=")'
	@echo "Making a virtual environment in .venv"
	$(PYTHON) -m venv .venv

.venv/for-demo: pyproject.toml | .venv/bin/python
	@echo "Installing fma with what the server and the demo need (the first time this takes a minute or two)"
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/for-development: pyproject.toml | .venv/bin/python
	@echo "Installing fma with its development tools (the first time this takes a few minutes)"
	$(PIP) --editable '.[dev]'
	@touch .venv/for-demo $@
