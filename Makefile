# Everything a person types here. `make` alone lists it.
# Needs Python 3.11 to 3.13 with venv, and make; no root. Another Python: make PYTHON=python3.13 …

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements.lock
RUNS   := $(VENV)/.made-for-run
TESTS  := $(VENV)/.made-for-tests
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(LOCK)

# More arguments for what a target starts: make run ARGS="--port 3900"
ARGS ?=
# Runs of the simulation in `make faults`: one or two a second; 0 leaves it out.
SEEDS ?= 2000

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint types imports tests parity bench faults loop docs format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUNS) ## set all up and start the daemon with its embedded defaults
	@exec $(BIN)/observer-actors serve $(ARGS)

test: lint types imports tests ## set all up and run the whole gate

lint: $(TESTS) ## rules and layout
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(TESTS) ## mypy, strict
	$(BIN)/mypy

imports: $(TESTS) ## imports flow one way
	$(BIN)/lint-imports --no-cache

tests: $(TESTS) ## the tests, with branch coverage, several files at once; ARGS="-k journal" for some
	$(BIN)/python -m pytest --cov --cov-report=term --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

parity: $(TESTS) ## the program this one replaces and this one, side by side
	$(BIN)/python -m tests.parity $(ARGS)

bench: $(TESTS) ## the benchmark, into docs/benchmarks.md; ARGS="--quick" for a short look
	$(BIN)/python -m benchmarks $(ARGS)

# What is missing is installed where that is possible: by root, on Debian. Elsewhere the faults that need it are not run.
faults: $(TESTS) ## thousands of simulated runs, faults into the real daemon, into docs/reliability.md, and fuzzing
	@for tool in strace cc; do command -v $$tool >/dev/null || missing=1; done; \
		if [ "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends strace build-essential >/dev/null; fi
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)
	$(BIN)/python -m tests.faults $(ARGS)
	OBSERVER_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -q --timeout 1800 tests/fuzz

loop: $(TESTS) ## a simulated fleet with advice and without, into docs/loop.md
	$(BIN)/python -m tests.loop $(ARGS)

docs: $(TESTS) ## remake the pages that are made from the code
	$(BIN)/python -m tests.metrics_page
	$(BIN)/observer-actors audit --inventory > docs/PYTHON_INVENTORY.md.new
	mv docs/PYTHON_INVENTORY.md.new docs/PYTHON_INVENTORY.md

format: $(TESTS) ## lay out the code, and mend what can be mended
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean: ## remove what can be made again; data/ stays
	rm -rf $(VENV) .venv-lock build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache .parity
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One lock for every Python we run on: the differences are markers in it.
# The grep is a guard: a lock must work wherever packages come from.
lock: ## remake the lock from the newest releases within pyproject's ranges
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet 'uv>=0.13,<0.14'
	.venv-lock/bin/uv pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --upgrade \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --output-file $(LOCK)
	@! grep -nE '://|^-|@ ' $(LOCK)

# The environment is made anew when what it is made from changes.
$(RUNS): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "needs Python 3.11 to 3.13, and $(PYTHON) is not: make PYTHON=python3.11 …" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) hatchling
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(TESTS): $(RUNS)
	$(PIP) setuptools wheel
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@
