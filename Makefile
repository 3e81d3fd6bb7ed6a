# What a contributor runs. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two processes of one thread each; whichever is done first takes tests from the other.
PARALLEL := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint type bench docs dist clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(INSTALLED)  ## create .venv and install the package with its tools (once)

# The stamp is written last: an interrupted install has none and is tried again.
$(INSTALLED): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)
	@$(BIN)/python .ci/install.py '.[dev,demo]'
	@touch $@

.PHONY: $(VENV)
$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "diffinst needs Python 3.10 or newer, but '$(PYTHON)' is older, broken or missing" \
	    "($$($(PYTHON) --version 2>&1 | head -n 1)). Name another one:" \
	    "make setup PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

demo: setup  ## segment an image with the weights that ship with the package
	$(BIN)/python examples/demo.py

test: setup  ## run the tests but the slow ones (offline, CPU, under 10 minutes)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: setup  ## run every test, the slow ones too
	$(BIN)/python -m pytest $(PARALLEL) -m ""

lint: setup  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup  ## check types
	$(BIN)/mypy

bench: setup  ## compare speed and memory with Mask R-CNN (some minutes, on an idle machine)
	$(BIN)/python benchmarks/speed.py

docs: setup  ## build the site into site/, offline; a warning is an error
	$(BIN)/python .ci/docs.py

dist: setup  ## build sdist and wheel into dist/ and check them as the index would
	$(BIN)/python .ci/dist.py

clean:  ## remove caches and builds (keeps .venv and runs)
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name $(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
