# Every target sets up what it needs; a second run downloads nothing. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The interpreter to build .venv with: `make setup PYTHON=/path/to/python3.12`; else the first of these that is new enough.
PYTHON ?=
PYTHONS := python3.11 python3.12 python3.13 python3
# Arguments for pytest: `make test ARGS="-k coupon"`. Seeds for the simulation: a number is how many, a list which ones:
# `make simulate SEEDS=10000`, `make simulate SEEDS=7,8,9`.
ARGS ?=
# Files of tests that run at the same time: much of a test on a real Kafka is waiting.
JOBS ?= 2
SEEDS ?=
# The long form of the fault runs, with more than a hundred kills: `make faults LONG=1`.
LONG ?=

LOCK = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help setup demo test lint bench simulate faults storms twice lock clean

help: ## List the targets.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-9s %s\n", $$1, $$2 }'

setup: $(READY) ## Make .venv with everything in it, the `lifecycle` command too.

$(READY): requirements.lock pyproject.toml
	@python=""; \
	for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11 or newer (with its venv module) among: $(or $(PYTHON),$(PYTHONS))." >&2; \
	  echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or say where: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	has=$$($(BIN)/python -c 'import pip, sys; print(sys.base_prefix)' 2>/dev/null || true); \
	wanted=$$("$$python" -c 'import sys; print(sys.base_prefix)'); \
	if [ -z "$$has" ] || [ -n "$(PYTHON)" -a "$$has" != "$$wanted" ]; then \
	  echo "Making $(VENV) with $$("$$python" --version): some 700 MB, a minute or two the first time."; \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	else \
	  echo "Bringing $(VENV) up to date with requirements.lock."; \
	fi; \
	if ! $(BIN)/python -m pip install --disable-pip-version-check --no-input --require-hashes --no-deps -r requirements.lock \
	     | { grep --line-buffered -oE 'Downloading [^ ]+ \([^)]*[0-9] MB\)' || true; }; then \
	  echo "That did not work, pip says why above. If there is no network: try again when there is one." >&2; \
	  exit 1; \
	fi; \
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Kafka, a worker and a year of real purchases, start to end; leaves nothing running.
	@$(BIN)/lifecycle demo

test: setup lint ## All checks and all tests, those on the real Kafka included.
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing \
	  --durations=15 $(ARGS)

lint: setup ## Style, types, and which way imports may point.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy app agents schemas
	@$(BIN)/lint-imports --no-logo --cache-dir $(VENV)/.import_linter_cache

bench: setup ## What an event costs: three rules and the whole catalogue; our engine and a plain Faust agent.
	@$(BIN)/python -m tests.bench $(ARGS)

simulate: setup ## Seeded faults against a naive oracle, and five planted bugs found: make simulate SEEDS=10000
	@$(BIN)/python -m tests.simulation.simulate $(if $(SEEDS),--seeds=$(SEEDS)) $(ARGS)
	@$(BIN)/python -m tests.simulation.planted

faults: setup ## Workers and brokers killed, frozen, replaced on a real Kafka: make faults LONG=1
	@$(BIN)/python -m tests.faults $(if $(LONG),--long) $(ARGS)

storms: setup ## A million events of one user, a bot, a million timers at one instant: make storms ARGS="--size 0.1"
	@$(BIN)/python -m tests.simulation.storms $(ARGS)

twice: setup ## The demo's replay with batches of 1 and of 5,000: the same bytes. make twice ARGS="--households 300"
	@$(BIN)/python -m tests.kafka.replay_twice $(ARGS)

lock: ## Work both locks (here and in deploy/) out anew from pyproject.toml (needs the network).
	@test -x $(BIN)/python || $(MAKE) setup
	@test -x $(VENV)/lock/bin/uv || { $(BIN)/python -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv; }
	@$(LOCK) --extra dev -o requirements.lock pyproject.toml
	@$(LOCK) --extra build -c requirements.lock -o deploy/requirements.lock pyproject.toml

clean: ## Remove .venv, caches and the embedded Kafka's data.
	@test ! -x $(BIN)/lifecycle || $(BIN)/lifecycle kafka down || true
	@rm -rf $(VENV) .lifecycle .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist *.egg-info
	@find app agents schemas tests -name __pycache__ -type d -prune -exec rm -rf {} +
