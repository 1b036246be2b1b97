# Each target makes its own environment in .venv when there is none and installs what it needs: the first run takes
# a few minutes for PyTorch, later ones start at once. Choose another Python or folder with
#     make test PYTHON=python3.12 VENV=/tmp/venv

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint type bench nbs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "make %-6s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/demo.stamp  ## fine-tune a pretrained network on real handwritten digits; pictures in demo/
	$(BIN)/python nbs/digits_demo.py

test: $(VENV)/dev.stamp  ## run all tests, a process on each core, with coverage
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: $(VENV)/dev.stamp  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/dev.stamp  ## check the package's types
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/dev.stamp  ## measure what we claim about speed
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

nbs: $(VENV)/nbs.stamp  ## run the course notebooks at full size; executed copies in demo/
	mkdir -p demo
	$(BIN)/jupyter execute --output=../demo/{notebook_name}.ipynb nbs/*.ipynb

clean:  ## remove what the targets made, but for the environment
	rm -rf demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/demo.stamp: EXTRAS = demo
$(VENV)/nbs.stamp: EXTRAS = demo,nbs
$(VENV)/dev.stamp: EXTRAS = demo,nbs,dev

$(VENV)/%.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing warmstart[$(EXTRAS)] into $(VENV) …"
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
