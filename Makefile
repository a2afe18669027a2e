# make demo   enlarge the bundled photos at every level; pictures in demo/
# make test   run every test
# make lint   check style, format and types
#
# All three create .venv on first use and install into it. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MANIFEST := pyproject.toml constraints.txt
LEAST := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: demo test lint

demo: .venv/core
	@echo "demo: enlarging the photos of examples/ four times, at every level of realism"
	$(BIN)/rcod upscale examples/*.jpg -o demo --realism all
	@echo "demo: done; the pictures are in demo/, start with demo/*-levels.*"

test: .venv/dev
	@echo "test: running every test, on the CPU"
	$(BIN)/python -m pytest

lint: .venv/dev
	@echo "lint: checking style, format and types"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

.venv/python:
	@command -v $(PYTHON) > /dev/null || \
	    { echo "rcod needs Python 3.11 or newer, and $(PYTHON) was not found; name one: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c '$(LEAST)' || \
	    { echo "rcod needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version); name another: make demo PYTHON=python3.12"; exit 1; }
	@echo "setup: creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/core: .venv/python $(MANIFEST)
	@echo "setup: installing rcod and what it needs into .venv, once (PyTorch is large: this takes minutes)"
	@$(INSTALL) -e .
	@touch $@

.venv/dev: .venv/core
	@echo "setup: adding the test and lint tools to .venv"
	@$(INSTALL) -e '.[dev,train,web,heic,jxl,sd]'
	@touch $@
