# Everything runs in the checkout's own virtual environment. Each target makes it if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: all venv test test-joined test-all check format demo bench wheel clean

all: venv

venv: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Hive needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Most tests wait for something, so two files run at a time. The long tests measure, so each runs alone.
BESIDE := -n 2 --dist loadfile

test: venv  ## under 5 minutes; says which tests it left out, and how to run them
	@echo "The long matrices and drills are left out: make test-all runs them."
	@$(BIN)/python -m pytest -m 'not long' $(BESIDE) $(ARGS)

test-all: venv  ## the long matrices and drills too: 30 minutes
	@$(BIN)/python -m pytest $(ARGS)

test-joined: venv  ## the hub's own suites, with every node joined by a link
	@$(BIN)/python -m pytest --link joined -m 'not long' $(BESIDE) tests/surfaces tests/hub tests/net $(ARGS)

check: venv
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/house.py

format: venv
	@$(BIN)/ruff check --fix --quiet src tests bench || true
	@$(BIN)/ruff format --quiet src tests bench

demo: venv
	@$(BIN)/hive demo $(ARGS)

bench: venv
	@$(BIN)/python bench/run.py $(ARGS)

wheel: venv
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
