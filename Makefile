# The only set-up commands are `make demo` and `make test`: each makes .venv when it is not there,
# installs into it what it needs, and runs. Nothing outside the repository is changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
DOCS := docs/web/mkdocs.yml
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
PINS := pyproject.toml constraints.txt

.PHONY: help demo test audit bench lint ruff types imports docs clean

help:
	@echo "make demo    answer private questions over a synthetic clinic"
	@echo "make test    lint, then every test but the long audits"
	@echo "make lint    ruff, mypy --strict and the rules about imports"
	@echo "make audit   the long audits, and a table of planted bugs: none may survive"
	@echo "make bench   every benchmark, results as JSON in benchmarks/results"
	@echo "make docs    the documentation as a web site, in site/"
	@echo "make clean   remove .venv, caches and everything built"

demo: $(VENV)/demo
	@$(BIN)/discreet demo

# Files are handed out whole, to as many processes as there are cores.
test: lint
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 10

audit: $(VENV)/dev
	@DISCREET_FIGURES=benchmarks/results/audits.json $(BIN)/python -m pytest -m audit
	@$(BIN)/python -m tests.audits.planted

lint: ruff types imports

ruff: $(VENV)/dev
	@$(BIN)/ruff check --quiet .

types: $(VENV)/dev
	@$(BIN)/mypy

imports: $(VENV)/dev
	@$(BIN)/lint-imports --no-logo --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

bench: $(VENV)/dev
	@mkdir -p benchmarks/results
	@for file in benchmarks/[a-z]*.py benchmarks/[a-z]*/__main__.py; do \
	    name=$${file#benchmarks/}; name=$${name%.py}; name=$${name%/__main__}; \
	    grep -q __main__ "$$file" || continue; \
	    echo "benchmarks/$$name"; \
	    $(BIN)/python -m "benchmarks.$$name" --json > "$(VENV)/bench.json"; \
	    mv "$(VENV)/bench.json" "benchmarks/results/$$name.json"; \
	done
	@$(BIN)/python -m benchmarks.attacks.picture benchmarks/results/attacks.json \
	    docs/reconstruction.svg
	@$(BIN)/python -m benchmarks.pictures.adaptive benchmarks/results/adaptive.json \
	    docs/adaptive.svg

docs: $(VENV)/dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file $(DOCS)

clean:
	@rm -rf $(VENV) site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	    .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras: a second run installs nothing unless a pin has changed.
$(VENV)/demo: $(PINS) | $(BIN)/python
	@echo "Installing Discreet into $(VENV) (once; this can take some minutes)" >&2
	@$(PIP) install --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/dev: $(PINS) | $(BIN)/python
	@echo "Installing Discreet and its development tools into $(VENV) (once)" >&2
	@$(PIP) install --constraint constraints.txt --editable '.[demo,dev,train]'
	@touch $(VENV)/demo $@

# The pins are for Python 3.11; a newer one is tried where 3.11 is missing.
$(BIN)/python:
	@for python in python3.11 python3 python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	        exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "Discreet needs Python 3.11 or newer; none was found" >&2; exit 1
