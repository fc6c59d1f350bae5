# make setup   .venv with everything in it (Python 3.10 or 3.11)
# make demo    the whole path on synthetic volumes: about seven minutes on two CPU cores
# make test    lint and the test suite: some 25 minutes on two cores
# make test-slow  what takes minutes: training to a target
# make bench   every op and three networks timed against their peers, to benchmarks/RESULTS.md: a quarter of an hour
# make results TASK=shapes_small [PART=result] [ONLY=row]  a published result: minutes to hours, see docs/results.md
# make format  rewrites the code as lint wants it
# make constraints  resolves all dependencies anew, writes constraints.txt (OLDEST_PYTHON=python3.10)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PY := $(BIN)/python
DEMO := runs/demo
OLDEST_PYTHON ?= python3.10
# TensorFlow 2.15 and Addons run on these two.
IS_RIGHT := -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2> /dev/null
PYTHON ?= $(shell for p in python3.11 python3.10 python3 python; do if $$p $(IS_RIGHT); then echo $$p; break; fi; done)

TASK ?= shapes_small
PART ?= result

.PHONY: help setup demo test test-slow bench results lint format constraints clean

help:
	@sed -n 's/^# make /make /p' Makefile

setup: .venv/installed

# The stamp is written last, so that an interrupted installation is done again.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	@if ! $(or $(PYTHON),false) $(IS_RIGHT); then \
	  echo "error: expected Python 3.10 or 3.11 on the PATH or as PYTHON=..., came $(or $(PYTHON),none)" >&2; exit 2; fi
	@echo "setup: $$($(PYTHON) --version) to .venv, a minute or two" && $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/pip check --disable-pip-version-check
	@touch $@

demo: setup
	@date +%s > .venv/demo_began
	rm -rf $(DEMO)
	$(PY) convert_main.py --source=synthetic:shapes --to=files --output=$(DEMO)/volumes
	$(PY) convert_main.py --source=$(DEMO)/volumes --output=$(DEMO)/records
	$(PY) train_main.py --strategy=mirrored --config.data.records=$(DEMO)/records --workdir=$(DEMO)/model
	$(PY) evaluate_main.py --workdir=$(DEMO)/model --split=val
	$(PY) export_main.py --workdir=$(DEMO)/model --output=$(DEMO)/saved_model
	unseen=$$(ls $(DEMO)/volumes/images/* | tail -n 1); \
	  $(PY) serving/client.py --model=$(DEMO)/saved_model --input=$$unseen --output=$(DEMO)/answers
	@echo
	@cat $(DEMO)/model/evaluation_val/metrics.txt
	@echo
	@echo "Metrics:             $(DEMO)/model/evaluation_val/metrics.json, and .txt as above"
	@echo "Pictures, val:       $(DEMO)/model/evaluation_val/*.png"
	@echo "Answer, unseen scan: $(DEMO)/answers/ (label volume, table, picture)"
	@echo "Volumes, records:    $(DEMO)/volumes, $(DEMO)/records"
	@echo "Checkpoints, log:    $(DEMO)/model; SavedModel: $(DEMO)/saved_model"
	@echo "Time:                $$(( $$(date +%s) - $$(cat .venv/demo_began) )) s, without the installation"

test: setup lint
	$(PY) -m pytest -n 2 --dist loadfile

test-slow: setup
	$(PY) -m pytest -m slow --timeout=3600

bench: setup
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(PY) -m benchmarks.run

results: setup
	$(PY) results_main.py --task=$(TASK) --part='$(PART)' --only='$(ONLY)'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Resolves everything anew on the oldest Python, whose versions install on both, and writes down what came.
constraints:
	rm -rf .venv-constraints
	$(OLDEST_PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/pip install --quiet --disable-pip-version-check 'setuptools>=68' '.[dev]'
	.venv-constraints/bin/pip freeze --all --exclude pip --exclude wheel --exclude mask-rcnn-3d > constraints.txt
	rm -rf .venv-constraints

clean:
	rm -rf .venv .venv-constraints build *.egg-info .pytest_cache .ruff_cache .hypothesis
