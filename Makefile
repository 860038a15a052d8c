# `make demo` and `make test` are all a newcomer needs. Setup runs when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow check docs wheel clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/genpercept demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## what takes half a minute or more: several processes, compiling, quantising
	$(BIN)/python -m pytest -m slow --dist load

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(STAMP)  ## the site, in site/: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

wheel: $(STAMP)  ## build it, install it elsewhere, predict with it
	tools/check_wheel.sh

clean:
	rm -rf demo site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
