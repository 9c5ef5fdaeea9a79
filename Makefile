# make console   install what is needed and talk
# make test      install what is needed and run the whole suite
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: console test chaos soak lint bench trace format setup help clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

.venv/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with the venv module is needed: install it, or name it with 'make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)'." >&2; exit 1; }
	@$(PYTHON) -m venv .venv && touch $@

.venv/.runtime: requirements.txt .venv/.made
	@echo "Installing what the companion needs into .venv (a minute or two, once)..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt && touch $@

.venv/.dev: requirements-dev.txt .venv/.runtime
	@echo "Installing what the tests need into .venv..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt && touch $@

setup: .venv/.runtime .venv/.dev  ## install everything into .venv, and nothing else

console: .venv/.runtime  ## talk to the companion in this terminal
	@$(RUN) agent.py console --text

test: .venv/.dev  ## run the whole test suite
	@$(RUN) -m pytest $(ARGS)

chaos: .venv/.dev  ## every fault, 100,000 cancellations and hostile inputs, with tables, in at most 5 minutes (ARGS="--only OOM --seed 2")
	@$(RUN) -m tests.faults $(ARGS)

soak: .venv/.dev  ## ten minutes of conversations while Redis and the store misbehave, with a table (ARGS="--minutes 1 --seed 2")
	@$(RUN) -m tests.soak $(ARGS)

lint: .venv/.dev  ## ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy --strict agent.py cache companion tools

.venv/.bench: requirements-bench.txt .venv/.dev
	@echo "Installing what the benchmarks compare with into .venv..."
	@for peer in $$(sed -n 's/^\([a-z][^ ]*\).*/\1/p' requirements-bench.txt); do \
		$(RUN) -m pip install --quiet --disable-pip-version-check "$$peer" || echo "$$peer cannot be installed here: left out."; \
	done; touch $@

bench: .venv/.bench  ## measure against the peers, in one run (ARGS=quick for two minutes)
	@$(RUN) -m benchmarks $(ARGS)

trace: .venv/.dev  ## the way to the first word, cold and warm, as a timeline
	@$(RUN) -m benchmarks.first_word

format: .venv/.dev  ## let ruff put the code in order
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:  ## remove .venv and caches (not .companion, where the memories are)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
