# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types lava-env clean

demo: $(VENV)/.demo
	$(BIN)/qkf-deploy demo --output out/demo

test: $(VENV)/.test lint types
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check qkf_deploy tests examples benchmarks
	$(BIN)/ruff format --check qkf_deploy tests examples benchmarks

types: $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("qkf-deploy with torch needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[torch,event,data]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) out build dist *.egg-info
