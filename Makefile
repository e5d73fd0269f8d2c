# Each target does its own set-up: a virtual environment in .venv, made once, and again when pyproject.toml changes.
# After that nothing is downloaded.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
# The versions that were tested together. Where they cannot be had, any that pyproject.toml allows will do.
CONSTRAINTS := $(wildcard constraints.txt)
define INSTALL
$(PIP) $(CONSTRAINTS:%=--constraint %) --editable '.[$(1)]' || \
	{ echo "The versions of constraints.txt cannot be had here; installing others"; $(PIP) --editable '.[$(1)]'; }
endef
# As many files at a time as there are cores, in the order of tests/conftest.py.
BY_FILES := -n auto --dist loadfile --no-loadscope-reorder
PYTEST := .venv/bin/python -m pytest $(BY_FILES)
# Tests wait for servers, for other processes and for times of theirs: twice as many files as there are cores.
WAITING := PYTEST_XDIST_AUTO_NUM_WORKERS=$$(($$(getconf _NPROCESSORS_ONLN) * 2))
# The tiers: tests/core loads nothing of the server; of the others, a test is long by its marker, which a fixture that
# starts a server brings with it.
CORE := tests/core
LONG := processes or postgres or s3 or slow
FAST := -m "not ($(LONG))"
# What may differ between databases: rows, SQL, JSON, constraints, concurrency. What is computed from the rows, and what
# the API makes of them, runs once: these files are left out because the others send nearly all of their statements, or
# because they start a PostgreSQL by themselves.
ON_POSTGRES := -m "not s3" $(filter-out $(addprefix tests/django/test_,array_policies.py columns.py conf.py json_schema.py \
	outgoing.py rates.py simulate.py squashed.py state.py strategies.py verification.py weights.py), \
	$(wildcard tests/django/test_*.py)) \
	tests/django/admin/test_lists.py $(addprefix tests/concurrency/test_,limits.py races.py second_factor.py) \
	$(addprefix tests/api/contract/test_,lists.py models.py) \
	$(addprefix tests/api/test_,accounts.py enrolment.py health.py idempotency.py joining.py schemathesis.py)
COMPILE = $< pip compile --quiet --upgrade --python-version 3.11 --extra dev --no-annotate --custom-compile-command 'make lock'
.DEFAULT_GOAL := help
.PHONY: help demo serve test test-core test-fast lint audit lock test-lowest test-matrix clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/for-demo ## Five clients train one model on handwritten digits, through a real server (about a minute)
	.venv/bin/fma demo

serve: .venv/for-demo ## Run a server on http://127.0.0.1:8000; its data is kept in ./fma-data
	.venv/bin/fma serve

test: .venv/for-development lint ## Lint, then run every test in stages, the short ones first, and check the coverage
	rm -f .coverage .coverage.*
	@echo "Core:"
	$(PYTEST) --cov --cov-report= --durations=10 $(CORE)
	@echo "Fast: what starts no server"
	$(WAITING) $(PYTEST) --cov --cov-append --cov-report= --durations=10 --ignore=$(CORE) $(FAST)
	@echo "Processes: what starts servers, and what is slow"
	$(WAITING) $(PYTEST) --durations=30 --ignore=$(CORE) -m "$(LONG)"
	@echo "PostgreSQL: what differs between databases, once more"
	$(PYTEST) -p tests.servers.use_postgres $(ON_POSTGRES)
	@echo "Coverage, with its floors:"
	.venv/bin/python -m coverage report --fail-under=90 --include='fma_core/*'
	.venv/bin/python -m coverage report --fail-under=90 --include='fma_django/*'
	.venv/bin/python -m coverage report --fail-under=80 --include='fma_connect/*'

test-core: .venv/for-development ## Run the tests of the arithmetic, without Django
	$(PYTEST) $(FAST) $(CORE)

test-fast: .venv/for-development ## Run the tests that start no server and are not slow
	$(WAITING) $(PYTEST) $(FAST)

# mypy's Django plugin imports the settings, and these want a secret key.
lint: .venv/for-development ## Check commits, style, types, and who imports whom
	.venv/bin/python .ci/commits.py
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	FMA_SECRET_KEY=of-no-use-to-anybody-0123456789-0123456789-0123456 .venv/bin/mypy
	.venv/bin/lint-imports

audit: .venv/bin/python ## Look for known vulnerabilities of the dependencies, where their database can be reached
	.ci/audit

lock: .venv-lock/bin/uv ## Write both files of constraints anew, with the versions that PyPI has now
	$(COMPILE) --universal --output-file constraints.txt pyproject.toml
	$(COMPILE) --resolution lowest-direct --output-file constraints-lowest.txt pyproject.toml

# Where a version of numpy, Django, its REST framework, its admin or httpx can make a difference. The other tests reach
# the same code through rows and settings, and would repeat what the newest versions show.
BY_VERSION := $(CORE) tests/connect tests/contracts tests/api tests/django/admin
# Old versions use what newer ones of other packages call deprecated: scikit-learn 1.5 does with SciPy 1.16. An old
# hypothesis warns now and then of its own generator of random numbers.
test-lowest: .venv-lock/bin/uv ## Run the fast tests of arithmetic, clients, stores, API and admin with the lowest versions allowed
	.ci/fast-tests .venv-lowest 3.11 constraints-lowest.txt $(BY_FILES) $(FAST) -W default::DeprecationWarning \
		-W default::hypothesis.errors.HypothesisWarning $(BY_VERSION)

VERSIONS := 3.12 3.13 3.14
test-matrix: .venv-lock/bin/uv ## Run the fast tests on Python 3.12 to 3.14, as far as they are here (Django 6 needs 3.12)
	for version in $(VERSIONS); do .ci/fast-tests .venv-$$version $$version constraints.txt $(BY_FILES) $(FAST) || exit; done

clean: ## Remove .venv, its kind, and what tests and tools leave behind (never ./fma-data)
	rm -rf .venv .venv-* .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fma needs Python 3.11 or newer; see PYTHON=")'
	@echo "Making a virtual environment in .venv"
	$(PYTHON) -m venv .venv

.venv/for-demo: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	@echo "Installing fma with what the server and the demo need (the first time this takes a minute or two)"
	$(call INSTALL,demo)
	@touch $@

.venv/for-development: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	@echo "Installing fma with its development tools (the first time this takes a few minutes)"
	$(call INSTALL,dev)
	@touch .venv/for-demo $@

.venv-lock/bin/uv:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
