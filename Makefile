# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 or later, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= runtime,serve,cluster,studio,grammar,otel,export,dev
INSTALLED := $(VENV)/.installed
COMPILE = OCTAVO_COMPILE=1 $(BIN)/python setup.py -q build_ext --inplace --parallel 2

.PHONY: setup demo test laws fire lint types docs gpu compile plain kernels clean

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

# The laws of docs/laws.md, each on a thousand random scenarios rather than on tens.
laws: $(INSTALLED)
	OCTAVO_LAWS=1000 $(BIN)/python -m pytest -n 2 -q tests/laws

# A thousand schedules of faults, bad input, an hour of load, overload, the end of a server: about an hour and a half.
# CONTRACT=a Python with octavo and schemathesis also checks the OpenAPI document; PIN='--core 0 --client-core 1' keeps
# server and clients on cores of their own. 6: something was missed.
MINUTES ?= 60
PIN ?=
fire: $(INSTALLED)
	test -f octavo-demo/bundle/manifest.json || $(BIN)/octavo demo
	$(BIN)/python tests/fire/all.py octavo-demo/bundle --minutes $(MINUTES) $(PIN) $(if $(CONTRACT),--contract $(CONTRACT))

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

# The same source of core and simulator, compiled by mypyc: simulations run three to four times as fast, with the same
# answers. Again after a change, else the source runs. `make plain` undoes it.
compile: $(INSTALLED)
	$(COMPILE)

plain:
	rm -f runtime/core/*.so simulator/*.so simulator/latency/*.so simulator/plan/*.so .compiled.json

# Octavo's own products of matrices for x86-64 processors, which the runtime then uses; needs a C++ compiler.
kernels: $(INSTALLED)
	$(BIN)/octavo kernels

gpu: $(INSTALLED)
	$(BIN)/python -m pytest -q -m gpu tests/gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache octavo-demo
