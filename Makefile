# `make demo` plays a whole consortium on this machine; `make test` passes the tests. Both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
OUT ?= results/demo
ARGS ?=
IMAGES ?= python python-cuda gatk4 aggregator
BUNDLE ?= $(IMAGES) local
VERSION = $(shell sed -n "s/^ *version = '\(.*\)'/\1/p" nextflow.config)
SETUP := $(VENV)/.installed .tools/nextflow/.installed .tools/gatk/.installed .tools/strict/.installed
# What is on PATH already comes first; what was fetched here stands behind it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):$(CURDIR)/tools/bin
export NXF_OFFLINE = true
export NXF_DISABLE_CHECK_LATEST = true

.PHONY: help setup demo docs images bundle pictures test test-fast lint lock clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s $$'\t'

setup: $(SETUP) ## Python environment, Nextflow, GATK and the strict syntax's parser, each only if missing

demo: $(SETUP) ## A simulated consortium of three hospitals, from reads to scored variants and a report
	@tools/demo $(OUT) $(ARGS)

docs: $(VENV)/.installed ## This documentation as a web site, in build/docs; fetches nothing
	$(VENV)/bin/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --fresh-env --jobs auto --quiet --doctree-dir build/doctrees docs build/docs
	@echo "Documentation: build/docs/index.html"

images: $(VENV)/.installed ## The container images, each with its size and its SBOM in dist/sbom; needs Docker. Some: IMAGES="python gatk4"
	@for image in $(IMAGES); do \
	    case $$image in \
	        python-cuda) tag=cordon-python:$(VERSION)-cuda; containers/python/build cuda $$tag ;; \
	        *) tag=cordon-$$image:$(VERSION); containers/$$image/build ;; \
	    esac; \
	    $(VENV)/bin/python containers/sbom.py $$tag dist/sbom/cordon-$$image.cdx.json; \
	done

bundle: $(SETUP) ## What a machine without a network needs, in dist. Parts of it: BUNDLE="python gatk4 aggregator local"
	@tools/bundle dist/cordon-$(VERSION)-bundle $(BUNDLE)
	@tar -C dist -cf dist/cordon-$(VERSION)-bundle.tar cordon-$(VERSION)-bundle

pictures: $(SETUP) ## Pictures of the demo's report for the documentation, in docs/pictures; needs Chromium
	@mkdir -p docs/pictures
	CORDON_PICTURES=$(CURDIR)/docs/pictures $(VENV)/bin/python -m pytest --quiet tests/test_demo.py -k pictures

test: $(SETUP) ## All tests; those that need Docker, Slurm or a browser say why they skip
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: $(SETUP) ## The tests without whole pipelines and federations
	$(VENV)/bin/python -m pytest -m "not pipeline and not federation"

lint: $(VENV)/.installed .tools/strict/.installed ## ruff, mypy, that every test can be read, and the strict syntax of Nextflow
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@$(VENV)/bin/python -m pytest --collect-only -qq -p no:warnings | sed -n '/ERRORS/,$$p'
	tools/bin/strict main.nf modules nextflow.config

lock: ## Pin every dependency anew: requirements.lock, tools/*/jars.lock
	$(VENV)/bin/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --extra dev --output-file requirements.lock pyproject.toml
	@for tool in tools/*/pom.xml; do tools/fetch "$$(basename "$$(dirname "$$tool")")" --lock; done

clean: ## Results and work folders of runs, bundles; what was set up stays
	rm -rf results dist work .nextflow .nextflow.log*

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "== Python environment in $(VENV) (about 6 GB, a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit("Cordon needs Python 3.11 or newer. Try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes --progress-bar off -r requirements.lock | { grep --line-buffered -E '^(Collecting|Installing|Successfully)' || true; }
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $@

.tools/%/.installed: tools/%/jars.lock
	@mkdir -p $(@D)
	@if [[ "$$(command -v $*)" != "$(CURDIR)/tools/bin/$*" ]]; then \
	    echo "== $*: the one on PATH, $$(command -v $*)"; \
	else \
	    echo "== $*: fetching its jars from Maven Central"; \
	    tools/fetch $*; \
	fi
	@touch $@
