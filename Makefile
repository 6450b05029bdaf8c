# Everything that can be done with this repository. Two commands are enough: `make quickstart` and `make test`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ON ?= cluster
DATA ?= $(or $(EVALJOB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/evaljob)/data
E2E := evaljob-e2e
QUICKSTART := evaljob-quickstart
FAULTS := $(wildcard tests/faults/test_*.py)
SUITES := cluster-tests $(FAULTS) torch test-vllm integration
NAMED = $(if $(CONTEXT),--context $(CONTEXT)) $(if $(IMAGES),--images $(IMAGES)) \
  $(if $(DATA_CLAIM),--data-claim $(DATA_CLAIM))
export OMP_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help quickstart test lint verify unit integration faults-test torch test-vllm chart crd-test e2e crd lock cluster-up cluster-down bench-overhead kill-test parity bench-runner bench-memory faults chaos fuzz node-faults bench-control

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

quickstart:  ## a real model on real data: ON=cluster (default) or local; CONTEXT=... a cluster of yours (README)
	python3 -m examples.quickstart --on $(ON) $(NAMED)

# Most tests wait more than they compute: two suites side by side, each printed when it has ended.
test: lint verify unit  ## everything, as CI runs it: lint, types, layers, generated files, all tests
	@echo "two at a time: $(SUITES); what each says follows when it has ended"
	$(MAKE) --no-print-directory -j2 --output-sync=target $(SUITES)
	@echo "make test: all passed"

lint: .venv/.synced  ## format, lint, strict types, layers
	.venv/bin/ruff format --check --quiet . || { .venv/bin/ruff format --diff . ; exit 1; }
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	.venv/bin/lint-imports

verify: .venv/.synced  ## generated files are what the models say
	.venv/bin/python crds/generate.py --check

crd: .venv/.synced  ## generate the CRD and the JSON Schemas from the models
	.venv/bin/python crds/generate.py

unit: .venv/.synced  ## pure tests, some 20 seconds: no processes, no cluster, no torch
	.venv/bin/pytest -q tests/unit

integration: .venv/.synced  ## real processes and real HTTP: no cluster, no torch
	.venv/bin/pytest -q tests/integration

faults-test: .venv/.synced  ## the operator under faults, thinned: a real API server without nodes, 90 seconds
	$(MAKE) --no-print-directory -j2 --output-sync=target $(FAULTS)

# Each on an API server of its own, two at a time: they wait for clocks more than they compute.
.PHONY: $(FAULTS)
$(FAULTS): .venv/.synced
	.venv/bin/pytest -q $@

faults: .venv/.synced  ## the operator under faults, all of them: six minutes; the last line is JSON
	.venv/bin/python -m tests.faults

chaos: .venv/.synced  ## the operator killed at random moments in runs of 20 partitions; the last line is JSON
	.venv/bin/python -m tests.faults.chaos

fuzz: .venv/.synced  ## EvalJobs drawn from the CRD's schema (COUNT=500, SEED=n) against the operator; the last line is JSON
	.venv/bin/python -m tests.faults.fuzz $(or $(COUNT),500) --seed $(or $(SEED),0)

node-faults: .venv/.synced  ## lost nodes, dead kubelets, a killed operator, on the cluster of e2e; the last line is JSON
	.venv/bin/python -m tests.e2e.nodefaults

bench-control: .venv/.synced  ## what the control side of N partitions costs (N=1000), beside a raw loop and plain kopf
	.venv/bin/python -m tests.benchmarks.control $(or $(N),1000) $(ARGS)

torch: .venv-test/.synced  ## tests of the runner with real weights, and of local runs
	.venv-test/bin/pytest -q tests/torch

test-vllm: .venv-vllm/.synced  ## tests of the vllm backend with a real engine, on the CPU
	.venv-vllm/bin/pytest -q tests/vllm

.PHONY: cluster-tests
cluster-tests: .venv/.synced .venv-test/.synced  ## chart, CRD and end-to-end tests on a cluster of their own
	.venv/bin/pytest -q tests/chart tests/crd tests/e2e

chart: .venv/.synced  ## tests of the Helm chart
	.venv/bin/pytest -q tests/chart

crd-test: .venv/.synced  ## accept and reject cases at a real API server
	EVALJOB_KEEP_CLUSTER=1 .venv/bin/pytest -q tests/crd

e2e: .venv/.synced .venv-test/.synced  ## end to end on a cluster that stays up for the next time; CONTEXT=... on yours
	EVALJOB_KEEP_CLUSTER=1 .venv/bin/pytest -q -rs tests/e2e $(NAMED)

bench-overhead: .venv/.synced .venv-test/.synced  ## what isolation costs per partition, by phase
	.venv-test/bin/python -m tests.benchmarks.overhead

parity: .venv-vllm/.synced .venv-examples/.synced  ## the same tasks by lm-eval and by the runner, sample by sample
	.venv-examples/bin/python -m examples.prepare $(DATA)
	.venv-vllm/bin/python -m tests.parity --prepared $(DATA)

bench-runner: .venv-vllm/.synced .venv-examples/.synced  ## the runner beside the bare engines and lm-eval: ratios of CPU seconds
	.venv-examples/bin/python -m examples.prepare $(DATA)
	.venv-vllm/bin/python -m tests.benchmarks.runner $(DATA)

bench-memory: .venv/.synced  ## the runner's memory by the number of samples; SIZES="1000 100000 1000000"
	.venv/bin/python -m tests.benchmarks.runner.memory $(SIZES)

kill-test: .venv-test/.synced  ## some 80 kill -9 of a partition at random moments, some in the middle of a write; SEED=n for others
	.venv-test/bin/python -m tests.benchmarks.kill --seed $(or $(SEED),0)

cluster-up:  ## a real cluster with two workers and simulated GPUs
	python3 -m tests.cluster up $(E2E) --workers 2 --gpus 8

cluster-down:  ## leave nothing of our clusters
	python3 -m tests.cluster down $(E2E)
	python3 -m tests.cluster down $(QUICKSTART)

lock: .venv/.synced  ## resolve dependencies anew into requirements/*.txt
	requirements/lock

.venv/.synced: requirements/dev.txt requirements/environment
	requirements/environment .venv dev.txt

.venv-vllm/.synced: requirements/test-vllm.txt requirements/environment requirements/cpu_stubs.py
	requirements/environment .venv-vllm test-vllm.txt

.venv-examples/.synced: requirements/examples.txt requirements/environment
	requirements/environment .venv-examples examples.txt

.venv-test/.synced: requirements/test-cpu.txt requirements/environment requirements/cpu_stubs.py
	requirements/environment .venv-test test-cpu.txt
