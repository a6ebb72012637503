# Every target makes its own .venv and installs this checkout into it with pinned versions.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench torture results help

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/ready ## which method still works past the window: a table in a few minutes
	$(BIN)/lampe-eval run --config demo

test: .venv/ready ## the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: .venv/ready ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready ## cost of methods and backends beside plain attention, of generating prompts, of the harness, here
	$(BIN)/lampe-eval speed
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.ruler
	$(BIN)/python -m benchmarks.overhead

torture: .venv/ready ## runs killed 50 times, which end as one that was not
	$(BIN)/python -m tests.e2e.torture 50

results: .venv/ready ## the reference run that is committed in results/, made whole again where it lacks anything
	$(BIN)/lampe-eval run --config pocket
	$(BIN)/lampe-eval run --config pocket-ruler
	$(BIN)/lampe-eval report results/pocket
	$(BIN)/lampe-eval report results/pocket-ruler
	$(BIN)/lampe-eval leaderboard build
