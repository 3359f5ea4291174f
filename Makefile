# `make demo` does the whole job of this project, `make test` passes its tests.
# Python 3.11 to 3.14 and make are needed; each target makes .venv when it is missing or stale. On Linux that fetches
# about 6 GB of packages, most of it PyTorch with CUDA; TORCH_INDEX=URL takes PyTorch from another index, its CPU one.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS) --constraint $(CONSTRAINTS)
TORCH_INDEX ?=
TORCH = $(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
OUT ?= demo
REPOSITORY ?=

# What another Python, or another version of a dependency, would break first; needs no development tools.
SMOKE := tests/test_smoke.py tests/mmfe_cache/store/test_unreadable.py
LOWEST := .venv-lowest
WEB := .venv-web

.PHONY: help install install-restore demo test test-lowest smoke-lowest test-web test-times lint unit page smoke dist docs clean

help:
	@echo "make demo     the whole pipeline on bundled photographs, on a CPU (result: $(OUT)/report/report.html)"
	@echo "make test     linters, type checker, import contracts and every test"
	@echo "make install  make .venv with mmfe in it, and no more; then: source $(BIN)/activate"
	@echo "              TORCH_INDEX=URL takes PyTorch from there: its CPU index saves 4 GB"
	@echo "make install-restore   no more than mmfe restore, inspect and model need: docs/install.md"
	@echo "make smoke    the few tests that another Python version would fail first"
	@echo "make test-lowest   every test with the lowest versions that pyproject.toml allows, in $(LOWEST);"
	@echo "              make smoke-lowest: the few of make smoke"
	@echo "make test-web  the tests of the page, which need Gradio and so an older Pillow, in $(WEB)"
	@echo "make test-times   CPU seconds of the slowest tests, child processes included"
	@echo "make dist     wheel and sdist in dist/, and a trial of the wheel; REPOSITORY=ADDRESS completes README's links"
	@echo "make docs     the documentation's site, in site/"
	@echo "make lint | unit | clean"

install: $(VENV)/.installed

install-restore: $(VENV)/.installed-restore

demo: $(VENV)/.installed
	$(BIN)/mmfe demo --out $(OUT)

test: lint unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry --no-ansi .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Two processes of one thread each: more would only wait for one another. Each file runs in one of them, else both
# would make its fixtures (the demo is one), and in the order of the paths: the longest, `cli`, comes first.
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# CPU seconds of the slowest tests: what else the machine does counts little. One process, so that each fixture is
# made once; PYTEST_ARGS chooses the tests.
test-times: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m benchmarks.suite_times $(PYTEST_ARGS)

smoke: $(VENV)/.installed-smoke
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest $(SMOKE) $(PYTEST_ARGS)

test-lowest: $(LOWEST)/constraints.txt
	$(MAKE) unit VENV=$(LOWEST) CONSTRAINTS=$<

smoke-lowest: $(LOWEST)/constraints.txt
	$(MAKE) smoke VENV=$(LOWEST) CONSTRAINTS=$<

test-web:
	$(MAKE) page VENV=$(WEB)

page: $(VENV)/.installed-web
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_web.py $(PYTEST_ARGS)

$(LOWEST)/constraints.txt: pyproject.toml .ci/lowest.py
	@mkdir -p $(@D)
	$(PYTHON) .ci/lowest.py $< > $@.part
	@mv $@.part $@

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python .ci/dist.py dist --repository "$(REPOSITORY)"

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 14) and "mmfe needs Python 3.11 to 3.14, and $(PYTHON) is %d.%d; try: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(TORCH)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-restore: requirements-restore.txt pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) --requirement requirements-restore.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(TORCH)
	$(PIP) --editable ".[dev]"
	@touch $(VENV)/.installed $@

# Gradio, and with it a Pillow below 13, which it asks for and our pin is not.
$(VENV)/.installed-web: $(VENV)/.installed-dev
	grep -v '^pillow==' $(CONSTRAINTS) > $(VENV)/constraints-web.txt
	$(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS) -c $(VENV)/constraints-web.txt gradio
	@touch $@

$(VENV)/.installed-smoke: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(TORCH)
	$(PIP) --editable . pytest pytest-timeout
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) .venv-* build dist site *.egg-info src/*.egg-info .pytest_cache .ruff_cache .hypothesis
