# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = qkf_deploy tests examples benchmarks tools
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types docs lava-env clean

demo: $(VENV)/.demo
	$(BIN)/qkf-deploy demo --output out/demo

test: $(VENV)/.test lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --durations 15

lint: $(VENV)/.test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("qkf-deploy with torch needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[torch,event,data]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.demo

# A second environment, Python 3.10, in which the Lava backend runs; does nothing but say so where there is no Python 3.10.
lava-env:
	./tools/make_lava_env.sh || [ $$? -eq 4 ]

clean:
	rm -rf $(VENV) .venv-lava out build dist *.egg-info
