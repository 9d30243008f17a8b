# The commands of the README. `make demo` and `make test` set up everything they need in this folder
# (.venv, target, python/cloister/_bin) and touch nothing outside it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
CARGO_TARGET_DIR ?= $(ROOT)/target
export CARGO_TARGET_DIR
PYTHON3 ?= python3
VENV := $(ROOT)/.venv
PYTHON := $(VENV)/bin/python
RUST_SOURCES := $(shell find $(ROOT)/rust $(ROOT)/Cargo.toml $(ROOT)/Cargo.lock -name '*.rs' -o -name 'Cargo.*')
EXTENSION := $(VENV)/.extension

include mk/static.mk

.PHONY: help demo test test-rust test-python lint wheel bench conformance tools extension clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## set up, then do the main job once, each step with its time
	@start=$$SECONDS; $(MAKE) --no-print-directory $(EXTENSION) static hello >&2; \
	$(PYTHON) examples/demo.py --set-up-seconds $$((SECONDS - start))

test: test-rust test-python ## set up, then run every test

test-rust: tools
	cargo test --locked --workspace --exclude cloister-native --all-targets
	cargo test --locked --workspace --exclude cloister-native --doc

test-python: tools $(EXTENSION) static hello wheel
	$(PYTHON) -m pytest

lint: $(EXTENSION) static ## formatting, lints, types, stubs
	$(VENV)/bin/ruff format --check python tests bench examples
	cargo fmt --check
	$(VENV)/bin/ruff check python tests bench examples
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(VENV)/bin/mypy
	$(PYTHON) -m mypy.stubtest cloister._native

wheel: $(VENV)/.dependencies static ## a wheel in dist/ that works anywhere on Linux x86-64
	rm -rf dist
	$(VENV)/bin/maturin build --release --locked --out dist

bench: $(EXTENSION) static ## measure against nginx and a plain proxy; results in bench/results
	bash bench/load/run.sh

conformance: $(EXTENSION) static hello ## what takes too long for `make test`
	$(PYTHON) -m pytest -m conformance -o addopts="-ra --import-mode=importlib"

tools: ## curl, openssl and newuidmap, which the tests drive; installed by root, else named
	@missing=(); for tool in curl openssl newuidmap ip; do command -v "$$tool" >/dev/null || missing+=("$$tool"); done; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq curl openssl uidmap iproute2 >/dev/null; \
	  else echo "the tests need: $${missing[*]} (Debian: apt-get install curl openssl uidmap iproute2)" >&2; exit 1; fi; \
	fi

extension: $(EXTENSION)

$(VENV)/.dependencies: pyproject.toml
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "maturin>=1.9,<2" "pip>=25.1"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --group dev
	touch $@

$(EXTENSION): $(VENV)/.dependencies $(RUST_SOURCES)
	$(VENV)/bin/maturin develop --quiet --release --locked
	touch $@

clean: ## remove what was built; keeps sources only
	rm -rf $(VENV) $(CARGO_TARGET_DIR) dist python/cloister/_bin python/cloister/*.so
