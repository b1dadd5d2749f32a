# Each command creates its virtual environment. PYTHON=python3.13 selects another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test docs test-ray matrix interop bench bench-quick lint format clean

# Hide the warnings of pydantic and upath about distilabel's own fields and files.
demo: $(READY)
	$(BIN)/python -W ignore::UserWarning examples/demo.py

# Branch coverage of the test processes; steps of pipelines run in processes that are not measured. The floor is today's
# 97 %, less one for code that depends on timing. The table is in .coverage.txt. `--immediate` removes each probe at its
# first hit, and the empty variable lets Python keep its bytecode where the environment forbids bytecode: without these
# two, the tests need a third more CPU time.
COVERAGE := 96
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)
	$(BIN)/python -m slipcover --immediate --json --out .coverage.json -m pytest -n 4 --dist worksteal
	@$(BIN)/python -m slipcover --branch --merge .coverage.json --out .coverage.json --skip-covered \
		--fail-under $(COVERAGE) >.coverage.txt || { cat .coverage.txt; exit 1; }
	@tail -n 1 .coverage.txt

# Build the site into site/. The variable turns off an advertisement of the theme's next release.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Run the tests with each supported Python, openai and other packages: an hour on two cores. ARGUMENTS='-s NAME' selects
# a session.
matrix: $(VENV)-matrix
	$(VENV)-matrix/bin/nox $(ARGUMENTS)

$(VENV)-matrix:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet nox uv

# Test other servers than the sandbox, each in its own virtual environment: two gigabytes, and minutes the first time.
interop: $(READY)
	$(BIN)/python tests/interop/run.py

# Run the tests on Ray apart from the others: Ray is large, and each of its pipelines starts for a quarter of a minute.
test-ray: $(VENV)-ray/.ready
	$(VENV)-ray/bin/pytest tests/pipelines/test_ray.py

# Measure all contenders and write benchmarks/results.md: most of an hour on two otherwise idle cores.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.environments
	$(BIN)/python -m benchmarks $(ARGUMENTS)

# Run the benchmarks with small numbers and without other contenders, into .bench-quick: a check of the format alone.
bench-quick: $(READY)
	$(BIN)/python -m benchmarks --plan quick --output .bench-quick

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_prose.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-matrix $(VENV)-ray .venv-bench .nox .interop .bench-quick demo-output site
	rm -rf .coverage.json .coverage.txt .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Install again when the dependencies change. pip has `--group` since 25.1.
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
