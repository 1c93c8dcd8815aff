# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 or later, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= runtime,serve,cluster,grammar,otel,export,dev
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test lint types docs gpu compile plain clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "octavo needs Python 3.11 or later; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/octavo demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -q

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

# Optional: the same source of core and simulator, compiled; simulations run about three times as fast. `make plain` undoes it.
compile: $(INSTALLED)
	OCTAVO_COMPILE=1 $(BIN)/python setup.py -q build_ext --inplace

plain:
	rm -f runtime/core/*.so simulator/*.so simulator/latency/*.so

gpu: $(INSTALLED)
	$(BIN)/python -m pytest -q -m gpu tests/gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache octavo-demo
