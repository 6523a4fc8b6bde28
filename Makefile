# `make train` and `make test` do everything on a fresh machine with Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= mnist-mlp
PORT ?= 5000
EXPERIMENT ?= mnist-mlp

# make train EPOCHS=5 DROPOUT=0.5: the knobs that people turn in capitals, and ARGS for any other (ARGS="-P rho=0.95")
KNOBS := EPOCHS BATCH_SIZE HIDDEN_UNITS HIDDEN_LAYERS DROPOUT OPTIMIZER LEARNING_RATE SEED NETWORK DATASET VALIDATION_SIZE DATA_DIR RUNS_DIR
# What is typed reaches the shell as it was typed, whatever is in it ("my data", $$, #): through the environment, where
# neither make nor the shell looks into it. ARGS alone is words for the shell.
TYPED := $(foreach name,$(KNOBS) MODEL PORT EXPERIMENT FILE WHAT,$(if $(filter undefined,$(origin $(name))),,$(name)))
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)
# for words that may be absent: the flag and its value, or nothing
given = $${$(2):+$(1) "$$$(2)"}

READY := $(VENV)/installed

# `--env-manager local` takes the python that PATH finds first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Else each of the many processes of a training or a test compiles all of us again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help train test test-whole mutants experiment compare report promote serve ui check soak lock ray clean
.PHONY: bench bench-epoch bench-step bench-run bench-trials bench-scaling bench-equivalence bench-delivery bench-keeping-up bench-log-call bench-verdicts bench-comparing bench-cnn bench-promotion bench-serving bench-cluster

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

train: $(READY)  ## train and record a run: make train EPOCHS=5 DROPOUT=0.5 SEED=2 ...
	@export MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"; \
	set --; for knob in $(KNOBS); do eval "value=\$${$$knob-}"; [ -z "$$value" ] || \
	    set -- "$$@" -P "$$(echo $$knob | tr A-Z a-z)=$$value"; done; \
	$(BIN)/mlflow run . --env-manager local --experiment-name "$$EXPERIMENT" "$$@" $(value ARGS)

test: $(READY)  ## run the tests, but for the slow ones (under 8 minutes on two cores)
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-whole: $(READY)  ## run the slow tests: long kills, soaks, fuzzes (twenty minutes)
	@$(BIN)/python -m pytest -m slow $(ARGS)

mutants: $(READY)  ## do the tests notice? an hour's slice: make mutants, or MODULES="networks/dropout serving/batching"
	@$(BIN)/python -m tests.mutants $(MODULES) $(ARGS)

soak: $(READY)  ## kill and starve runs at random instants: make soak N=100 (half an hour)
	@$(BIN)/python -m tests.soak --n $(or $(N),100) $(ARGS)

bench: bench-epoch bench-step bench-run bench-trials bench-scaling bench-equivalence bench-delivery bench-keeping-up bench-log-call bench-verdicts bench-comparing bench-promotion bench-cnn bench-serving  ## measure speed and equivalence (an hour)

bench-epoch bench-step bench-run bench-trials bench-scaling bench-equivalence bench-delivery bench-log-call bench-verdicts bench-comparing bench-promotion bench-cnn bench-serving: $(READY) benchmarks/.venv/installed
	@$(BIN)/python -m benchmarks.$(subst -,_,$(@:bench-%=%)) $(ROUNDS)

bench-cluster: ray  ## measure what Ray costs an experiment (half an hour)
	@$(BIN)/python -m benchmarks.cluster $(ROUNDS)

bench-keeping-up: $(READY)
	@$(BIN)/python -m benchmarks.keeping_up $(RUNS)

benchmarks/.venv/installed: benchmarks/requirements.txt
	@echo "installing the benchmarks' peers into benchmarks/.venv"
	@$(PYTHON) -m venv benchmarks/.venv
	@benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

check: $(READY)  ## run the linters and the type checker
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

ui: $(READY)  ## compare runs in the browser: make ui PORT=5000
	@$(BIN)/python -m pipeline.delivery.ui "$$PORT" "$${RUNS_DIR:-runs}"
	@$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --port "$$PORT"

experiment: $(READY)  ## ask a question of many runs: make experiment FILE=experiments/dropout.yaml
	@$(BIN)/python -m pipeline experiment "$${FILE:-experiments/dropout.yaml}" \
	    $(call given,--data_dir,DATA_DIR) $(call given,--runs_dir,RUNS_DIR) $(value ARGS)

compare: $(READY)  ## compare an experiment's runs: make compare WHAT=dropout
	@$(BIN)/python -m pipeline compare $${WHAT:+"$$WHAT"} $(value ARGS)

report: $(READY)  ## write the lab book, experiments/README.md, from the records
	@$(BIN)/python -m pipeline report $(value ARGS)

promote: $(READY)  ## let the newest version become champion, if it is better: make promote ARGS=--dry-run
	@$(BIN)/python -m pipeline promote --model "$$MODEL" \
	    $(call given,--data_dir,DATA_DIR) $(call given,--runs_dir,RUNS_DIR) $(value ARGS)

serve: $(READY)  ## serve the champion, with a page to draw on: make serve MODEL=mnist-mlp PORT=5000
	@$(BIN)/python -m pipeline serve --model "$$MODEL" --port "$$PORT" $(value ARGS)

LOCKED := --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade --quiet
lock: $(READY)  ## make the locks anew from the ranges in pyproject.toml and requirements-ray.in
	@$(BIN)/uv pip compile pyproject.toml --extra dev $(LOCKED) --output-file requirements.lock
	@$(BIN)/uv pip compile requirements-ray.in $(LOCKED) --output-file requirements-ray.lock

ray: $(VENV)/ray-installed  ## install Ray as well, for experiments on a cluster (docs/cluster.md)

$(VENV)/ray-installed: requirements-ray.lock $(READY)
	@echo "installing Ray into $(VENV) (300 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-ray.lock
	@touch $@

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version); try: make PYTHON=python3.11 ..."; exit 2; }
	@echo "installing the locked requirements into $(VENV) (6 GB, a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

clean:  ## remove the environment and the tools' caches; runs and data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
