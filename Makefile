# `make demo` plays a whole consortium on this machine; `make test` passes the tests. Both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
OUT ?= results/demo
ARGS ?=
IMAGES ?= python train train-cuda gatk4 aggregator
BUNDLE ?= $(IMAGES) local
VERSION = $(shell sed -n "s/^ *version = '\(.*\)'/\1/p" nextflow.config)
# cpu, or cuda for NVIDIA GPUs; what is there stays, unless told otherwise.
TORCH ?= $(if $(wildcard $(VENV)/.installed-cuda),cuda,cpu)
export PYTHON TORCH
RUNTIME := $(VENV)/.installed-$(TORCH)
DEVELOPMENT := $(VENV)/.installed-$(TORCH)-dev
SETUP := $(RUNTIME) .tools/nextflow/.installed .tools/nextflow/.classes .tools/gatk/.installed .tools/gatk/.classes
# What is on PATH already comes first; what was fetched here stands behind it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):$(CURDIR)/tools/bin
LOCK := UV_CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/bin/uv pip compile --quiet --no-cache --universal --fork-strategy fewest \
    --generate-hashes --no-emit-index-url
# What was installed is compiled as it is first used, and then kept.
export PYTHONDONTWRITEBYTECODE =
export NXF_OFFLINE = true
export NXF_DISABLE_CHECK_LATEST = true

.PHONY: help setup setup-dev demo docs images bundle pictures test test-quick lint lock clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s $$'\t'

setup: ## What pipelines need: Python environment, Nextflow and GATK, each only if missing. GPUs: TORCH=cuda make setup
	@if ! $(MAKE) --silent --question $(SETUP) 2>/dev/null; then \
	    tools/prerequisites && $(MAKE) --silent --jobs 3 $(SETUP); \
	fi

setup-dev: setup ## And what tests, lint and documentation need
	@$(MAKE) --silent $(DEVELOPMENT) .tools/strict/.installed

demo: setup ## A simulated consortium of three hospitals, from reads to scored variants and a report
	@tools/demo $(OUT) $(ARGS)

docs: setup-dev ## This documentation as a web site, in build/docs; fetches nothing
	$(VENV)/bin/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --fresh-env --jobs auto --quiet --doctree-dir build/doctrees docs build/docs
	@echo "Documentation: build/docs/index.html"

images: setup-dev ## The container images, each with its size and its SBOM in dist/sbom; needs Docker. Some: IMAGES="python gatk4"
	@for image in $(IMAGES); do \
	    case $$image in \
	        train-cuda) tag=cordon-train:$(VERSION)-cuda; containers/python/build train-cuda $$tag ;; \
	        *) tag=cordon-$$image:$(VERSION); containers/$$image/build ;; \
	    esac; \
	    $(VENV)/bin/python containers/sbom.py $$tag dist/sbom/cordon-$$image.cdx.json; \
	done

bundle: setup-dev ## What a machine without a network needs, in dist. Parts of it: BUNDLE="python gatk4 aggregator local"
	@tools/bundle dist/cordon-$(VERSION)-bundle $(BUNDLE)
	@tar -C dist -cf dist/cordon-$(VERSION)-bundle.tar cordon-$(VERSION)-bundle

pictures: setup-dev ## Pictures of the demo's report for the documentation, in docs/pictures; needs Chromium
	@mkdir -p docs/pictures
	CORDON_PICTURES=$(CURDIR)/docs/pictures $(VENV)/bin/python -m pytest --quiet tests/pipeline/test_demo.py -k pictures

# Three at a time on two cores: those that play federations mostly wait.
test: setup-dev ## All tests; those that need Docker, Slurm or a browser say why they skip
	$(VENV)/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-quick: setup-dev ## The tests without pipelines, federations, statistics and stress
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile -m "not statistical and not pipeline and not federation and not stress"

lint: setup-dev ## ruff, mypy, the direction of imports, that every test can be read, and the strict syntax of Nextflow
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	@$(VENV)/bin/python -m pytest --collect-only -qq -p no:warnings | sed -n '/ERRORS/,$$p'
	tools/bin/strict main.nf subworkflows modules conf nextflow.config

lock: setup ## Pin what is new or no longer fits: requirements*.lock, tools/*/jars.lock. All anew: remove them first
	$(LOCK) --python-version 3.11 --extra train --output-file requirements.lock pyproject.toml
	$(LOCK) --python-version 3.11.5 --extra train --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml
	@for tool in tools/*/pom.xml; do tools/fetch "$$(basename "$$(dirname "$$tool")")" --lock; done

clean: ## Results and work folders of runs, bundles; what was set up stays
	rm -rf results dist work .nextflow .nextflow.log*

# An environment is made anew, whatever was in it: one that was changed is no longer what the lock says.
$(RUNTIME): requirements.lock pyproject.toml tools/environment containers/pinned.py containers/python/stand_ins.py \
    $(wildcard containers/python/*.txt)
	@tools/environment $(VENV) requirements.lock $(TORCH)
	@touch $@

$(DEVELOPMENT): requirements-dev.lock $(RUNTIME)
	@tools/environment $(VENV) requirements-dev.lock $(TORCH) --add
	@touch $@

.tools/%/.classes: .tools/%/.installed tools/classes
	@if compgen -G ".tools/$*/*.jar" >/dev/null; then tools/classes $*; fi
	@touch $@

.tools/%/.installed: tools/%/jars.lock
	@mkdir -p $(@D)
	@if [[ "$$(command -v $*)" != "$(CURDIR)/tools/bin/$*" ]]; then \
	    echo "== $*: the one on PATH, $$(command -v $*)"; \
	else \
	    tools/fetch $*; \
	fi
	@touch $@
