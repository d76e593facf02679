# `make demo` and `make test` need nothing but this repository, Python >= 3.10 and a network to install from.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ATTEMPTS ?= 24
# Where torch comes from, when not from pip's own index; on a machine without an NVIDIA GPU:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
HOUSE := benchmarks calibration drivers export runtime
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# setuptools warns about every editable installation.
export PYTHONWARNINGS = ignore

.PHONY: help setup demo test lint coverage mutation bench bench-endurance bench-peers bench-faults test-py310 links clean

help: ## what there is to make
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready links ## virtual environment and system packages (quick the second time)

$(VENV)/.system: .ci/system-packages
	@.ci/system-packages $(PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) --version); Holdfast needs Python >= 3.10: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.ready: $(VENV)/.system pyproject.toml constraints.txt
	@echo "installing Python packages into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install -q --upgrade 'pip>=23.1'
	@if [ -n "$(TORCH_INDEX)" ]; then $(BIN)/python -m pip install -q -c constraints.txt --index-url $(TORCH_INDEX) torch; fi
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[export,sim,dev]'
	@touch $@

# Type checkers do not follow `package-dir`; a folder of links shows them the package as it is installed.
links:
	@mkdir -p .links/holdfast
	@for room in $(HOUSE); do ln -sfn ../../$$room .links/holdfast/$$room; done

demo: setup ## export the shipped policy, then let it drive the simulated arm; prints success and deadlines
	@$(BIN)/vla-bench demo --attempts $(ATTEMPTS) $(ARGS)

# Those with deadlines have the machine to themselves. Pytest's 5: no such test among those that ARGS choose.
TIMED := e2e or real_time

test: setup ## all tests
	@$(BIN)/python -m pytest -n auto --dist loadscope -m "not ($(TIMED))" --durations=15 $(ARGS) || test $$? = 5
	@$(BIN)/python -m pytest -m "$(TIMED)" --durations=15 $(ARGS) || test $$? = 5

lint: setup ## format, lint and type checks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright

# Of the files that pyproject.toml names under tool.coverage.
COVERING := arming body_checks chain chain_setpoints core core_edges core_stops deadlines gate latch_and_table reactions requests \
	settle stop_categories tools watch

coverage: setup ## every branch of the safety code is taken by its unit tests (100 %)
	@mkdir -p runs
	@$(BIN)/python -m pytest --cov --cov-report=term-missing $(COVERING:%=tests/runtime/control/test_%.py) $(ARGS)

mutation: setup ## makes mistakes in the safety code: a test must notice each (half an hour; goes on where it was)
	@$(BIN)/python -m tests.mutation $(ARGS)

bench: setup ## bus, tick, jitter, footprint and task benchmarks
	@$(BIN)/vla-bench bus $(ARGS)
	@$(BIN)/vla-bench tick $(ARGS)
	@$(BIN)/vla-bench jitter $(ARGS)
	@$(BIN)/vla-bench footprint $(ARGS)
	@$(BIN)/vla-bench task export/models/demo/model.pt $(ARGS)

# For the night, on a machine with nothing else to do; ENDURANCE_S=30 shows that it runs.
ENDURANCE_S ?= 600

bench-endurance: setup ## ENDURANCE_S (600) seconds of control under inference load, then a tenth of it at 500 Hz
	@$(BIN)/vla-bench endurance --seconds $(ENDURANCE_S) $(ARGS)
	@$(BIN)/vla-bench endurance --seconds $$(($(ENDURANCE_S) / 10)) --control-hz 500 --baud 4000000 --output runs/endurance-500 $(ARGS)

bench-peers: setup ## another runtime on the same work, beside ours (installs 700 MB under runs/)
	@$(BIN)/vla-bench peers $(ARGS)

bench-faults: setup ## the fault campaign at nightly size (goes on where it was ended), beside an hour of clean soak
	@$(BIN)/vla-bench faults --soak 3600 --soak-virtual $(ARGS)
	@$(BIN)/vla-bench faults $(ARGS)

# The run path as JetPack 6 has it: Python 3.10, onnxruntime 1.23.2, no torch.
PYTHON310 ?=
NOT_310 := --ignore=tests/benchmarks --ignore=tests/faults --ignore=tests/mutation --ignore=tests/runtime/control/test_stop_model.py

test-py310: setup ## the run path on Python 3.10 with onnxruntime 1.23.2 and without torch
	@python=$$(.ci/python310 $(PYTHON310)) && { test -z "$$python" || $(MAKE) --no-print-directory .run-py310 PYTHON310="$$python"; }

.PHONY: .run-py310
.run-py310: .venv310/.ready
	@mkdir -p runs
	@XDG_STATE_HOME=$(CURDIR)/runs/state $(BIN)/vla-export --fp16 demo --output runs/py310.vla --force
	@.venv310/bin/python -m pytest -n auto --dist loadscope -m "not export and not ($(TIMED))" $(NOT_310) --bundle=runs/py310.vla $(ARGS)
	@.venv310/bin/python -m pytest -m "real_time and not export and not e2e" $(NOT_310) --bundle=runs/py310.vla $(ARGS)
	@.venv310/bin/python -m pytest tests/runtime/test_faults_e2e.py --bundle=runs/py310.vla $(ARGS)

.venv310/.ready: pyproject.toml constraints.txt
	@test -x .venv310/bin/python || $(PYTHON310) -m venv .venv310
	@.venv310/bin/python -m pip install -q --upgrade 'pip>=23.1'
	@.venv310/bin/python -m pip install -q -c constraints.txt -e '.[sim]' 'onnxruntime==1.23.2' onnx pytest pytest-rerunfailures pytest-timeout pytest-xdist hypothesis feetech-servo-sdk
	@touch $@

clean: ## remove what was made here (environments, caches, runs)
	rm -rf $(VENV) .venv310 .links runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
