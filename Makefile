# `make demo` and `make test` do all set-up themselves; PYTHON=python3.13 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test matrix bench bench-quick lint format clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/pytest -n 4 --dist worksteal

# Every supported version of Python, openai and the rest, an hour of two cores; `-s NAME` in ARGUMENTS runs one session.
matrix: .venv-matrix
	.venv-matrix/bin/nox $(ARGUMENTS)

.venv-matrix:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet nox uv

# Everything side by side, most of an hour of two cores that have nothing else to do: benchmarks/results.md.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.environments
	$(BIN)/python -m benchmarks $(ARGUMENTS)

# The same with small numbers and without what has to be installed, for the shape of the results, in .bench-quick.
bench-quick: $(READY)
	$(BIN)/python -m benchmarks --plan quick --output .bench-quick

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-matrix .venv-bench .nox .bench-quick demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Installed anew when the dependencies change. `--group` came with pip 25.1.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@
