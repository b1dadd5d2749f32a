# `make demo` and `make test` do all set-up themselves; PYTHON=python3.13 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test docs test-ray matrix interop bench bench-quick lint format clean

# Without what newer releases of pydantic and upath say of distilabel's own fields and files.
demo: $(READY)
	$(BIN)/python -W ignore::UserWarning examples/demo.py

test: $(READY)
	$(BIN)/pytest -n 4 --dist worksteal

# The site, in site/. The theme would advertise its successor.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Every supported version of Python, openai and the rest, an hour of two cores; `-s NAME` in ARGUMENTS runs one session.
matrix: $(VENV)-matrix
	$(VENV)-matrix/bin/nox $(ARGUMENTS)

$(VENV)-matrix:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet nox uv

# Against other servers than the sandbox, each in a virtual environment of its own: a gigabyte, and minutes the first time.
interop: $(READY)
	$(BIN)/python tests/interop/run.py

# Ray is large, and each of its pipelines takes a quarter of a minute to start: apart from the others.
test-ray: $(VENV)-ray/.ready
	$(VENV)-ray/bin/pytest tests/pipelines/test_ray.py

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
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-matrix $(VENV)-ray .venv-bench .nox .interop .bench-quick demo-output site
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Installed anew when the dependencies change. `--group` came with pip 25.1.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

$(VENV)-ray/.ready: pyproject.toml
	test -x $(VENV)-ray/bin/python || $(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-ray/bin/python -m pip install --quiet --editable '.[ray]' --group dev
	touch $@
