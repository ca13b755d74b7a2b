# Every target makes what it needs, from nothing but python3 (3.10 or newer) and a package index.
VENV    ?= .venv
PYTHON  ?= python3
BANK    ?= bank
JOBS    ?= 2
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# One thread a process: two processes on two cores beat two threads that wait for each other.
RUN     := OMP_NUM_THREADS=1

.PHONY: help pretrain test lint format types layers docs clean
.DELETE_ON_ERROR:

help:
	@echo "make pretrain   pre-train experts on the embedded graphs into $(BANK)/"
	@echo "make test       run the tests"
	@echo "make lint types layers docs   what a change must also pass"
	@echo "make clean      remove the environment and everything generated"

pretrain: $(VENV)/.core
	$(RUN) $(BIN)/graphmoe pretrain --config configs/pretrain/embedded.yaml --out $(BANK) --jobs $(JOBS) --resume
	$(BIN)/graphmoe experts ls $(BANK)

test: $(VENV)/.test
	$(RUN) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test
	$(BIN)/mypy

layers: $(VENV)/.test
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Stamps: an environment is made once, and again when what it is made from changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "graphmoe needs Python 3.10 or newer; this is " + sys.version.split()[0] + " (choose another with PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch goes in by itself: later requirements then accept the build that is there.
$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e '.[docs]'
	@touch $@
