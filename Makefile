# `make` lists what there is. `make sweep` and `make test` need nothing before them and start at once when run again.

ENV := .venv
PYTHON := $(ENV)/bin/python
READY := $(ENV)/.installed
UNFINISHED := $(ENV)/.installing
LOG := $(ENV)/pip.log
# pip would translate the modules of all packages one by one, on one core.
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --progress-bar off --no-compile
TRANSLATE := $(PYTHON) -m compileall -qq -j 0 $(ENV)/lib
# Where to look for a Python to begin with; `make setup BASE=/path/to/python3.12` names one.
BASE := python3 python3.13 python3.12 python3.11
TESTS := $(PYTHON) -m pytest
# Those that take minutes begin first, or the others wait for them in the end. Other files are not read for nothing.
LONGEST := tests/test_sweep_killed.py tests/test_retraining.py tests/test_survival.py tests/test_storm.py
LONGEST_FIRST = $(LONGEST) $(filter-out $(LONGEST),$(shell grep -l mark.slow tests/test_*.py))
# To collect all tests takes as long as one of these.
CLUSTER := tests/test_cluster_slurm.py tests/test_cluster_ray.py tests/test_cluster_database.py \
	tests/test_cluster_postgres.py tests/test_cluster_proxy.py tests/test_cluster_dashboard.py
EXTRAS ?= data,dashboard,dev,export,publish
MARKED ?= cluster
# What the tests of clusters run, and the packages of Debian that have it.
SERVICES := /usr/lib/postgresql/*/bin/initdb /usr/bin/sbatch /usr/sbin/munged /usr/bin/unshare /usr/bin/ps
PACKAGES := postgresql slurm-wlm munge iproute2 util-linux procps

.PHONY: help sweep test test-slow test-gpu test-cluster services browser docs lint setup clean

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1|/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-18s %s\n' "$$name" "$$text"; done

sweep: $(READY) ## search the accuracy-throughput front; make sweep ARGS="trials=40 workers=4"
	@$(PYTHON) -m explore.sweep +sweep=pareto $(ARGS)

test: lint ## lint, types and the tests of every day
	@$(TESTS) -n 2 --dist loadfile -m "not slow and not gpu and not cluster" $(ARGS)

test-slow: $(READY) ## the tests that take longer
	@$(TESTS) -n 2 --dist loadfile --no-loadscope-reorder -m "slow and not gpu and not cluster" $(LONGEST_FIRST) $(ARGS)

test-gpu: $(READY) ## the tests that need a CUDA device
	@$(TESTS) -m gpu $(ARGS)

test-cluster: services $(READY) ## the tests with real PostgreSQL, Slurm and Ray, which it installs; as root on Debian
	@$(PYTHON) -c 'import grpc, psycopg, ray' 2>/dev/null || \
		$(INSTALL) --quiet --editable '.[$(EXTRAS),postgres,ray,grpc]'
	@$(TESTS) -n 4 --dist load --maxschedchunk 1 -m '$(MARKED)' $(or $(filter tests/%,$(ARGS)),$(CLUSTER)) $(filter-out tests/%,$(ARGS))

# Tests of pages look with it, and are skipped where there is none.
browser:
	@for name in chromium chromium-browser google-chrome chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then echo "make browser must be run as root on Debian" \
		"or Ubuntu, got user $$(id -un); install Chromium or Chrome by hand" >&2; exit 1; fi; \
	echo "Installing chromium"; export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium > /dev/null

# With RUNLEVEL the services do not start by themselves: the tests start and end their own.
services:
	@if [ "$$(id -u)" != 0 ]; then echo "make test-cluster must be run as root, because it makes machines and networks," \
		"got user $$(id -un); try sudo make test-cluster" >&2; exit 1; fi; \
	if command -v unshare > /dev/null && ! unshare --net --uts --pid --fork true 2> /dev/null; then \
		echo "make test-cluster must be allowed to make namespaces, got a container that is not;" \
		"try docker run --privileged" >&2; exit 1; fi; \
	if ls $(SERVICES) > /dev/null 2>&1; then exit 0; fi; \
	if ! command -v apt-get > /dev/null; then echo "make test-cluster must find what Debian calls $(PACKAGES)," \
		"got a system without apt-get; run it on Debian or Ubuntu" >&2; exit 1; fi; \
	echo "Installing $(PACKAGES)"; export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends $(PACKAGES) > /dev/null

docs: $(READY) ## the page of all mixings, from the catalogs
	@$(PYTHON) docs/make_mixings.py

lint: $(READY) ## style and types only
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy

setup: $(READY) ## a virtual environment in .venv with everything in it
	@echo "$(ENV) is ready"

clean: ## remove .venv and every cache; results in outputs stay
	@rm -rf $(ENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	@find benchmarks explore tests -name __pycache__ -prune -exec rm -rf {} +

# An installation that was stopped half-way leaves UNFINISHED behind, and the next one starts from nothing. Its rename
# tells success from failure: a pipeline has the exit status of its last command only. The screen shows what takes long.
$(READY): pyproject.toml
	@base=; any=; for each in $(BASE); do \
		$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; any=$$each; \
		if $$each -c 'import ensurepip, venv' 2>/dev/null; then base=$$each; break; fi; done; \
	if [ -z "$$any" ]; then \
		echo "Python must be 3.11 or newer, got $$(python3 --version 2>/dev/null || echo none);" \
			"install one, or name it: make setup BASE=/path/to/python3.12" >&2; exit 1; fi; \
	if [ -z "$$base" ]; then \
		echo "$$any must have the modules venv and ensurepip, got a Python without;" \
			"install them (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; fi; \
	echo "Setting up $(ENV) with $$($$base --version): a few minutes, once"; \
	if [ -e $(UNFINISHED) ]; then find $(ENV) -mindepth 1 -maxdepth 1 ! -name .installing -exec rm -rf {} +; fi; \
	mkdir -p $(ENV) && touch $(UNFINISHED) && rm -f $(READY) && $$base -m venv $(ENV) && \
	{ $(INSTALL) --editable '.[$(EXTRAS)]' && { $(TRANSLATE) || :; } && mv $(UNFINISHED) $(READY); } 2>&1 | tee $(LOG) | \
	while IFS= read -r line; do case "$$line" in \
		*Downloading*MB\)) echo "$$line";; \
		"Installing collected packages"*) echo "  Installing";; esac; done; \
	if [ ! -e $(READY) ]; then grep -v "WARNING: Location" $(LOG) | tail -n 20 >&2; \
		echo "The packages could not be installed; $(LOG) says all, and make goes on when run again." >&2; exit 1; fi
