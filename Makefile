# make console   install what is needed and talk
# make test      install what is needed and run the whole suite
# 3.12 first: for it there is a wheel of everything that the tests use.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN := $(BIN)/python
PIP_INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# uv installs in seconds what takes pip most of a minute. Where uv cannot (a mirror that only pip is configured for), pip does.
ifeq ($(shell uv --version >/dev/null 2>&1 && echo uv),uv)
export UV_SYSTEM_CERTS ?= 1# the machine's certificates, as pip has them; older versions of uv know the other name
export UV_NATIVE_TLS ?= 1
VENV = uv venv --quiet --seed --allow-existing --no-python-downloads --python "$$(command -v $(PYTHON))" .venv 2>/dev/null \
	|| $(PYTHON) -m venv .venv
INSTALL = uv pip install --quiet --python $(RUN) --constraint constraints.txt $(1) 2>/dev/null || $(PIP_INSTALL) $(1)
else
VENV = $(PYTHON) -m venv .venv
INSTALL = $(PIP_INSTALL) $(1)
endif

# `uv sync` removes from .venv what it does not install itself: what is missing is installed anew.
ifeq ($(wildcard .venv/lib/python*/site-packages/supabase),)
$(shell rm -f .venv/.runtime)
endif
ifeq ($(wildcard .venv/bin/pytest),)
$(shell rm -f .venv/.dev)
endif

.PHONY: console test test-fast contract chaos soak lint bench trace pictures docs format configuration setup constraints \
	help clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

.venv/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12, 3.13 or 3.14 with the venv module is needed: install it, or name it with 'make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)'." >&2; exit 1; }
	@{ $(VENV); } && touch $@

.venv/.runtime: requirements.txt constraints.txt .venv/.made
	@echo "Installing what the companion needs into .venv (a minute or two, once)..."
	@{ $(call INSTALL,-r requirements.txt); } && touch $@

.venv/.dev: requirements-dev.txt .venv/.runtime
	@echo "Installing what the tests need into .venv..."
	@{ $(call INSTALL,-r requirements-dev.txt); } && touch $@

setup: .venv/.runtime .venv/.dev  ## install everything into .venv, and nothing else

console: .venv/.runtime  ## talk to the companion in this terminal
	@$(RUN) agent.py console --text

# Most tests wait, so that four run at a time on two cores. Tests of time run apart (tests/turns.py).
PARALLEL := -n 4 --dist worksteal

test: .venv/.dev  ## run the whole test suite, several tests at a time (ARGS="tests/cache -k lease")
	@$(RUN) -m pytest $(PARALLEL) $(ARGS)

test-fast: .venv/.dev  ## run the unit tests, in less than a minute
	@$(RUN) -m pytest -m unit $(ARGS)

contract: .venv/.dev  ## judge new releases of LiveKit, hiredis, redis-py and supabase-py (docs/upgrading.md)
	@$(RUN) -m pytest tests/contract --continue-on-collection-errors $(ARGS)

chaos: .venv/.dev  ## every fault, 100,000 cancellations and hostile inputs, with tables, in at most 7 minutes (ARGS="--only OOM --seed 2")
	@$(RUN) -m tests.faults $(ARGS)

soak: .venv/.dev  ## ten minutes of conversations while Redis and the store misbehave, with a table (ARGS="--minutes 1 --seed 2")
	@$(RUN) -m tests.soak $(ARGS)

lint: .venv/.dev  ## ruff and mypy --strict, also as on Windows
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy --strict agent.py cache companion tools distribution/*.py
	@$(BIN)/mypy --config-file .ci/mypy-windows.ini agent.py cache companion tools

.venv/.bench: requirements-bench.txt .venv/.dev
	@echo "Installing what the benchmarks compare with into .venv..."
	@for peer in $$(sed -n 's/^\([a-z][^ ]*\).*/\1/p' requirements-bench.txt); do \
		{ $(call INSTALL,"$$peer"); } || echo "$$peer cannot be installed here: left out."; \
	done; touch $@

bench: .venv/.bench  ## measure against the peers, in one run (ARGS=quick for some minutes, ARGS=fleet: many conversations)
	@$(RUN) -m benchmarks $(ARGS)

trace: .venv/.dev  ## what a caller waits for until the first sound, beside the floor, in five minutes (ARGS=1: one round)
	@$(RUN) -m benchmarks.first_sound $(ARGS)

pictures: .venv/.dev  ## record the terminal for the README, and draw the picture of the first sound from its figures
	@$(RUN) docs/pictures/record_console.py && $(RUN) -m benchmarks.first_sound.picture

constraints:  ## write constraints.txt anew with the newest versions that fit, to be tested then (needs uv)
	@{ sed -n '/^#/p' constraints.txt && uv pip compile --quiet --universal --python-version 3.11 --no-header \
		--no-annotate --no-emit-index-url --strip-extras requirements-bench.txt; } > .constraints.new \
		&& mv .constraints.new constraints.txt

format: .venv/.dev  ## let ruff put the code in order
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

configuration: .venv/.runtime  ## write docs/configuration.md and .env.example from the settings classes
	@$(RUN) docs/write_configuration.py

docs: .venv/.dev  ## show the documentation as a site, at http://127.0.0.1:8000
	@$(BIN)/mkdocs serve

clean:  ## remove .venv and caches (not .companion, where the memories are)
	@rm -rf .venv .site .pytest_cache .mypy_cache .ruff_cache .hypothesis
