# Two commands do everything on a fresh machine with Python 3.11 or newer: make demo, make test.
# Both make .venv and install what they need; the second time there is nothing left to install.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/tools
INSTALL := $(BIN)/python tools/install.py --constraint constraints.txt --editable

.PHONY: help demo test lint format clean

help:
	@echo "make demo    set up, train eight subsets on real digits, write report.html"
	@echo "make test    set up, run the linter, the type checker and all tests"
	@echo "make lint    linter and type checker only"
	@echo "make format  rewrite the code in the project's format"
	@echo "make clean   remove .venv and caches; runs/ stays"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gammabeta needs Python 3.11 or newer: write make PYTHON=python3.12 demo"; exit 2; }
	@echo "setting up .venv (once; torch is the largest download)"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) '.[demo,export]'
	@touch $(READY)

$(TOOLS): $(READY)
	@echo "adding what tests and checks need"
	@$(INSTALL) '.[dev]'
	@touch $(TOOLS)

demo: $(READY)
	@$(BIN)/gammabeta demo

test: lint
	@$(BIN)/pytest -n 3 --dist worksteal

lint: $(TOOLS)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(TOOLS)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
