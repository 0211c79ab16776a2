# Every command a developer types. A fresh machine with Python >= 3.11 needs nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIGS := bundle/configs
# Test processes; each uses one thread, so that two do not fight for the same cores.
JOBS ?= auto
# Tests of one file share what is slow to make, so they run in one process; by name, the slow e2e ones come first.
# They start hundreds of interpreters, each of which would compile the package anew where bytecode is not written.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
STORE := sqlite:///$(CURDIR)/bundle/eval/mlflow.db

.DEFAULT_GOAL := help
.PHONY: help train test test-fast coverage lint register serve mlflow clean

help:           ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run

train: $(VENV)/.run   ## install, train on the embedded sample images, print the comparison table
	$(BIN)/python -m monai.bundle run training --config_file $(CONFIGS)/train.json $(ARGS)

test: $(VENV)/.dev    ## install with the dev extra, run the whole test suite
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.dev   ## the unit tests alone
	$(PYTEST) -m "not e2e and not gpu" $(ARGS)

coverage: $(VENV)/.dev    ## the whole test suite, and which lines it does not reach; takes a third longer
	$(BIN)/python -m coverage erase
	$(PYTEST) --cov --cov-report=term-missing:skip-covered $(ARGS)

lint: $(VENV)/.dev    ## ruff, mypy, import-linter
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

register: $(VENV)/.run   ## put the released weights into MLflow's model registry
	$(BIN)/python scripts/register_model.py $(ARGS)

serve: $(VENV)/.run   ## answer with the registered model on http://127.0.0.1:5001 (docs/mlflow.md)
	PATH="$(abspath $(BIN)):$$PATH" MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-$(STORE)}" $(BIN)/python -m mlflow \
		models serve -m models:/meddenoise@champion --env-manager local --host 127.0.0.1 --port 5001 $(ARGS)

mlflow: $(VENV)/.run  ## open the MLflow UI on the store of trainings, evaluations and registrations
	$(BIN)/python scripts/open_mlflow.py $(ARGS)

clean:          ## remove what trainings and evaluations wrote, MLflow history included, but not the released weights
	rm -rf bundle/eval bundle/models/checkpoint_last.pt bundle/models/model_best.* bundle/models/model_previous.*
